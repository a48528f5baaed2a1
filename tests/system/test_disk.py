"""Full disks: small real ones, where the machine permits mounting."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline.system.files import DiskFullError, atomic_path, check_room, same_disk, write_json
from pipeline.system.tensor_files import save_tensors
from tests.helpers.tiny_run import SHORT, run_stage, write_params

MEGABYTE = 2**20


def mount(place: Path, kilobytes: int, *, again: bool = False) -> None:
    """Give a folder a disk of its own, or change its size."""
    options = f"size={kilobytes}k{',remount' if again else ''}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("making a small disk is not permitted here")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount(place, 1024)
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_work_that_does_not_fit_is_refused_before_it_begins(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    check_room({tmp_path / "new/store": free // 10})
    message = r"new/store: not enough disk space, up to .+ needed, .+ free; free some space and run"
    with pytest.raises(DiskFullError, match=message):
        check_room({tmp_path / "new/store": 2 * free})
    share = int(0.6 * free)
    with pytest.raises(DiskFullError, match=r"/b: not enough"):  # one disk, both
        check_room({tmp_path / "a": share, tmp_path / "b": share + 1})


def test_each_disk_is_counted_by_itself(disk: Path, tmp_path: Path) -> None:
    assert same_disk(tmp_path / "a", tmp_path / "b/c")
    assert not same_disk(tmp_path / "a", disk / "b/c")
    check_room({tmp_path / "a": 10 * MEGABYTE, disk / "b": MEGABYTE // 2})
    with pytest.raises(DiskFullError, match=r"disk/b/c: .+ up to 2\.1 MB needed, 1\.0 MB free"):
        check_room({tmp_path / "a": 1, disk / "b/c": 2 * MEGABYTE})


def test_a_full_disk_leaves_the_old_file_and_no_draft(disk: Path) -> None:
    write_json(disk / "out", [1])
    before = (disk / "out").read_bytes()
    with pytest.raises(DiskFullError, match=r"disk/out: .+ at least 1\.0 MB needed"):  # noqa: SIM117
        with atomic_path(disk / "out") as draft:
            draft.write_bytes(b"x" * 2 * MEGABYTE)
    assert (disk / "out").read_bytes() == before
    assert [path.name for path in disk.iterdir()] == ["out"]
    write_json(disk / "out", [2])  # a small file fits


def write_folder(path: Path, file: Path) -> None:
    """Write a folder, and in the meantime a file."""
    with atomic_path(path) as draft:
        draft.mkdir()
        write_json(draft / file, ["x" * 2 * MEGABYTE])


def test_the_error_names_the_output_that_is_written(disk: Path, tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match=r"disk/results: not enough"):
        write_folder(disk / "results", Path("metrics.json"))  # the folder, not a file in it
    with pytest.raises(DiskFullError, match=r"disk/state: not enough"):
        write_folder(tmp_path / "curves", disk / "state")
    assert not (tmp_path / "curves").exists()
    assert list(disk.iterdir()) == []


def test_tensors_are_refused_before_and_while_they_are_written(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {"weight": torch.zeros(MEGABYTE)}  # 4 bytes each
    with pytest.raises(DiskFullError, match=r"disk/state: .+ up to 4\.2 MB needed"):
        save_tensors(disk / "state", tensors, {})
    monkeypatch.setattr("pipeline.system.tensor_files.check_room", lambda needs: None)
    with pytest.raises(DiskFullError, match=r"disk/state: not enough disk space, at least"):
        save_tensors(disk / "state", tensors, {})
    assert list(disk.iterdir()) == []


# A stage, options for the small disk, its kilobytes, and the output that the error names.
CASES: dict[str, tuple[str, list[str], int, str]] = {
    "charts": ("prepare", ["--report", "disk/report"], 8, "disk/report: "),
    "work in progress": ("pseudo", ["--scratch", "disk"], 40, "disk/pseudo-"),
    "store": ("pseudo", ["--out", "disk/masks.zarr"], 40, "disk/masks.zarr: "),
    "checkpoints": ("train", ["--scratch", "disk"], 500, "disk/train-"),
    "segmenter": ("train", ["--out", "disk/segmenter"], 100, "disk/segmenter: "),
}


@pytest.mark.parametrize("name", CASES)
def test_a_stage_on_a_full_disk_ends_with_one_line_and_runs_when_there_is_space(
    name: str, run_copy: Path
) -> None:
    stage, arguments, kilobytes, output = CASES[name]
    changes = {"clip.templates": "carb"} if stage == "pseudo" else {}  # or it has nothing to do
    write_params(run_copy, SHORT | changes)
    disk = run_copy / "disk"
    disk.mkdir()
    mount(disk, kilobytes)
    try:
        result = run_stage(stage, *arguments)
        assert result.exit_code == 2, f"{result.output} {result.exception!r}"
        (line,) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
        assert output in line
        assert "not enough disk space" in line
        hidden = (".draft", ".lock", ".old")
        assert not [path for path in disk.iterdir() if path.name.endswith(hidden)]
        mount(disk, 400_000, again=True)
        if name != "checkpoints":  # of the same kind as the segmenter
            result = run_stage(stage, *arguments)
            assert result.exit_code == 0, f"{result.output} {result.exception!r}"
    finally:
        subprocess.run(["umount", "disk"], cwd=run_copy, capture_output=True)
