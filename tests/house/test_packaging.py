"""What a user installs: the wheel runs by itself, the source archive is the whole repository."""

import os
import subprocess
import sys
import tarfile
import tomllib
from pathlib import Path
from zipfile import ZipFile

import pytest
from ruamel.yaml import YAML

from tests.helpers.import_closure import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PACKAGES = ("pipeline", "stages", "bench", "demo")
ABOUT = "carb_wsss-" + PROJECT["project"]["version"]


def run(*command: str | Path, cwd: Path = ROOT, **environment: str) -> str:
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with both archives; the wheel is built from the unpacked source archive."""
    out = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", out)
    return out


def test_wheel_holds_the_code_and_nothing_else(built: Path) -> None:
    more = PROJECT["tool"]["setuptools"]["package-data"]
    code = {
        path.relative_to(ROOT).as_posix()
        for package in PACKAGES
        for pattern in ("**/*.py", *more.get(package, []))
        for path in (ROOT / package).glob(pattern)
    }
    with ZipFile(built / f"{ABOUT}-py3-none-any.whl") as wheel:
        found = {name for name in wheel.namelist() if ".dist-info/" not in name}
        assert f"{ABOUT}.dist-info/licenses/LICENSE" in wheel.namelist()
    assert found == code


def test_installed_wheel_runs_without_the_repository(built: Path, tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index"]
    run(*pip, "--target", tmp_path, built / f"{ABOUT}-py3-none-any.whl")
    carb = tmp_path / "bin/carb"
    said = run(sys.executable, carb, "--help", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert "eval-pseudo" in said
    program = "import pipeline.config.params as module; print(module.__file__)"
    assert (
        run(sys.executable, "-c", program, cwd=tmp_path)
        == f"{tmp_path}/pipeline/config/params.py\n"
    )


def test_source_archive_is_the_whole_repository(built: Path) -> None:
    if not (ROOT / ".git").exists():
        pytest.skip("no git here")
    with tarfile.open(built / f"{ABOUT}.tar.gz") as archive:
        found = {name.removeprefix(f"{ABOUT}/") for name in archive.getnames()}
    assert set(run("git", "ls-files").split()) <= found


def test_citation_is_of_this_version_and_licence() -> None:
    cited = YAML(typ="safe").load(ROOT / "CITATION.cff")
    assert cited["version"] == PROJECT["project"]["version"]
    assert cited["license"] == PROJECT["project"]["license"]
    assert "2312.13646" in cited["preferred-citation"]["identifiers"][0]["value"]


def test_docker_is_given_what_the_wheel_is_made_of() -> None:
    given = (ROOT / ".dockerignore").read_text("utf-8").splitlines()
    assert {f"!{name}" for name in (*PACKAGES, "pyproject.toml", "README.md", "LICENSE")} <= {
        *given
    }
