"""Stages on a disk that is too small: one line, nothing half-written, and they resume later."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.tiny_run import finished_run, run_stage, write_params

STEPS = {"train.steps": 4, "train.checkpoint_every": 2, "train.preview_every": 2}
# One stage per kind of error: a small file, a store in scratch, a folder, safetensors, checkpoints.
# Options for the small disk, its kilobytes, and what the error says.
CASES: dict[str, tuple[str, list[str], int, str]] = {
    "charts": ("prepare", ["--report", "disk/report"], 8, "disk/report: cannot be written"),
    "work in progress": ("pseudo", ["--scratch", "disk"], 40, "disk/pseudo-"),
    "store": ("pseudo", ["--out", "disk/masks.zarr"], 40, "disk/masks.zarr: up to"),
    "checkpoints": ("train", ["--scratch", "disk"], 500, "disk/train-"),
    "segmenter": ("train", ["--out", "disk/segmenter"], 100, "disk/segmenter: up to"),
    "curves": ("train", ["--curves", "disk/curves"], 8, "disk/curves: cannot be written"),
}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return finished_run(tmp_path_factory.mktemp("good"), STEPS)


@pytest.fixture
def here(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A finished run with an empty folder ``disk``, which is unmounted in the end."""
    folder = shutil.copytree(finished, tmp_path / "run")
    monkeypatch.chdir(folder)
    (folder / "disk").mkdir()
    yield folder
    subprocess.run(["umount", "disk"], cwd=folder, capture_output=True)


def limit(kilobytes: int, *, again: bool = False) -> None:
    """Give the folder ``disk`` a size of its own, or another one."""
    options = f"size={kilobytes}k{',remount' if again else ''}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", "disk"]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("making a small disk is not permitted here")


@pytest.mark.parametrize("name", CASES)
def test_a_full_disk_is_one_line_and_the_stage_runs_when_there_is_room(
    name: str, here: Path
) -> None:
    stage, arguments, kilobytes, says = CASES[name]
    if stage == "pseudo":  # or nothing would have to be written
        write_params(here, STEPS | {"clip.templates": "carb"})
    limit(kilobytes)
    result = run_stage(stage, *arguments)
    assert result.exit_code == 2, f"{result.output} {result.exception!r}"
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert says in line
    assert "make room and run again" in line
    assert " needs " in line or " will be written " in line
    written = [path.name for path in Path("disk").iterdir()]
    assert not [path for path in written if path.endswith((".draft", ".lock", ".old"))]
    limit(400_000, again=True)
    result = run_stage(stage, *arguments)
    assert result.exit_code == 0, f"{result.output} {result.exception!r}"
