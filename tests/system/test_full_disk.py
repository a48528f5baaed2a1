"""Each stage on a disk that is too small: one line, nothing half-written, and it goes on later."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.tiny_run import finished_run, run_stage, write_params

STEPS = {"train.steps": 4, "train.checkpoint_every": 2, "train.preview_every": 2}
# What goes to the small disk, how many kilobytes it has, and what must be told.
CASES: dict[str, tuple[str, list[str], int, str]] = {
    "draw": ("draw", ["--out", "disk/demo"], 60, "disk/demo: cannot be written"),
    "prepare": ("prepare", ["--report", "disk/report"], 8, "disk/report: cannot be written"),
    "pseudo, work in progress": ("pseudo", ["--scratch", "disk"], 40, "disk/pseudo-"),
    "pseudo, store": ("pseudo", ["--out", "disk/masks.zarr"], 40, "disk/masks.zarr: up to"),
    "encoder": ("encoder", ["--out", "disk/encoder"], 500, "disk/encoder: up to"),
    "train, checkpoints": ("train", ["--scratch", "disk"], 500, "disk/train-"),
    "train, segmenter": ("train", ["--out", "disk/segmenter"], 500, "disk/segmenter: up to"),
    "train, curves": ("train", ["--curves", "disk/curves"], 8, "disk/curves: cannot be written"),
    "eval": ("eval", ["--out", "disk/eval"], 8, "disk/eval: cannot be written"),
    "eval_pseudo": ("eval_pseudo", ["--out", "disk/eval"], 8, "disk/eval: cannot be written"),
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
def test_a_full_disk_is_told_in_one_line_and_the_stage_runs_when_there_is_room(
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
