"""What users get wrong: one sentence that names the place, exit code 2, nothing half-written."""

import shutil
from pathlib import Path

import pytest

from tests.helpers import bad_files, bad_settings
from tests.helpers.bad_settings import PHOTOS
from tests.helpers.tiny_run import finished_run, run_stage, write_params

CASES = bad_files.CASES | bad_settings.CASES
USAGE: dict[str, tuple[str, tuple[str, ...], str]] = {  # what typer itself refuses
    "unknown option": ("prepare", ("--colour", "red"), "No such option"),
    "scale of nothing": ("eval", ("--images", PHOTOS, "--scale", "0"), "--scale"),
    "scale of no number": ("eval", ("--images", PHOTOS, "--scale", "nan"), "--scale"),
    "window of one side": ("eval", ("--images", PHOTOS, "--window", "64"), "--window"),
    "window of nothing": ("eval", ("--images", PHOTOS, "--window", "0", "64"), "--window"),
    "radius of no number": ("eval", ("--images", PHOTOS, "--edge-radius", "wide"), "--edge-radius"),
    "argument too many": ("prepare", ("data/demo",), "data/demo"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("good"), {"train.steps": 4})


def state(folder: Path) -> dict[str, bytes | str]:
    """Every file, link and folder but logs of speed and checkpoints, which are scratch."""
    paths = (path for path in folder.rglob("*") if "scratch" not in path.parts)
    return {str(path): path.read_bytes() if path.is_file() else "folder or link" for path in paths}


@pytest.mark.parametrize("name", CASES)
def test_mistake_is_named_in_one_sentence(
    name: str, finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    folder = shutil.copytree(finished, tmp_path / "run")
    monkeypatch.chdir(folder)
    write_params(folder, {"train.steps": 4} | case.params)
    for variable, value in case.environment.items():
        monkeypatch.setenv(variable, value)
    case.spoil()
    before = state(folder)
    result = run_stage(case.stage, *case.arguments)
    assert result.exit_code == 2, f"{result.output} {result.exception!r}"
    lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, result.output
    assert len(lines[0]) < 1000
    assert "Traceback" not in result.output
    for part in case.says:
        assert part in lines[0]
    assert state(folder) == before
    assert not Path("harm").exists()


@pytest.mark.parametrize("name", USAGE)
def test_a_wrong_command_line_is_answered_by_its_usage(
    name: str, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, arguments, found = USAGE[name]
    monkeypatch.chdir(finished)
    before = state(finished)
    result = run_stage(stage, *arguments)
    assert result.exit_code == 2, result.output
    assert found in result.stderr
    assert "Traceback" not in result.output
    assert state(finished) == before


def test_photo_without_any_class_is_named_and_left_out(
    finished: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    folder = shutil.copytree(finished, tmp_path / "run")
    monkeypatch.chdir(folder)
    header, first, *rest = Path("data/image_labels.csv").read_text().splitlines()
    empty = ",".join([first.split(",")[0], *["0"] * header.count(",")])
    Path("labels.csv").write_text("\n".join([header, empty, *rest]) + "\n")
    write_params(folder, {"dataset.image_labels": "labels.csv"})
    assert run_stage("prepare").exit_code == 0
    assert "train/00000 has no class at all; left out" in caplog.text
    assert "train/00000" not in Path("data/image_labels.csv").read_text()
