"""Full disks: a real one of a megabyte where the machine permits it."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from pipeline.system.disk import DiskFullError, check_room, same_disk
from pipeline.system.files import atomic_path, write_json
from pipeline.system.tensor_files import save_tensors

MEGABYTE = 2**20


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of one megabyte."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("making a small disk is not permitted here")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_work_that_does_not_fit_is_refused_before_it_begins(tmp_path: Path) -> None:
    free = shutil.disk_usage(tmp_path).free
    check_room({tmp_path / "new/store": free // 10})
    message = r"new/store: up to .+ will be written and .+ are free on that disk; make room and run"
    with pytest.raises(DiskFullError, match=message):
        check_room({tmp_path / "new/store": 2 * free})
    share = int(0.6 * free)
    with pytest.raises(DiskFullError, match=r"/b: up to .* make room"):  # one disk, both
        check_room({tmp_path / "a": share, tmp_path / "b": share + 1})


def test_disks_are_counted_each_for_itself(disk: Path, tmp_path: Path) -> None:
    assert same_disk(tmp_path / "a", tmp_path / "b/c")
    assert not same_disk(tmp_path / "a", disk / "b/c")
    check_room({tmp_path / "a": 10 * MEGABYTE, disk / "b": MEGABYTE // 2})
    with pytest.raises(DiskFullError, match=r"disk/b/c: up to 2\.1 MB .+ and 1\.0 MB are free"):
        check_room({tmp_path / "a": 1, disk / "b/c": 2 * MEGABYTE})


def test_a_full_disk_leaves_the_old_file_and_no_draft(disk: Path) -> None:
    write_json(disk / "out", [1])
    before = (disk / "out").read_bytes()
    with pytest.raises(DiskFullError, match=r"disk/out: .+ it needs 1\.0 MB or more"):  # noqa: SIM117
        with atomic_path(disk / "out") as draft:
            draft.write_bytes(b"x" * 2 * MEGABYTE)
    assert (disk / "out").read_bytes() == before
    assert [path.name for path in disk.iterdir()] == ["out"]
    write_json(disk / "out", [2])  # there is room for what is small


def write_results(path: Path) -> None:
    with atomic_path(path) as draft:
        draft.mkdir()
        write_json(draft / "figures.json", ["x" * 2 * MEGABYTE])


def test_of_a_file_in_a_folder_the_folder_is_named(disk: Path) -> None:
    with pytest.raises(DiskFullError, match=r"disk/results: cannot be written"):
        write_results(disk / "results")
    assert list(disk.iterdir()) == []


def write_curves_and_state(curves: Path, state: Path) -> None:
    with atomic_path(curves) as draft:
        draft.mkdir()
        save_tensors(state, {"weight": torch.zeros(MEGABYTE)}, {})


def test_what_is_written_meanwhile_is_named_itself(disk: Path, tmp_path: Path) -> None:
    with pytest.raises(DiskFullError, match=r"disk/state: up to 4\.2 MB will be written"):
        write_curves_and_state(tmp_path / "curves", disk / "state")
    assert not (tmp_path / "curves").exists()


def test_tensors_are_refused_before_a_byte_is_written_and_after_a_look_that_was_too_early(
    disk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tensors = {"weight": torch.zeros(MEGABYTE)}  # 4 bytes each
    with pytest.raises(DiskFullError, match=r"disk/state: up to 4\.2 MB will be written"):
        save_tensors(disk / "state", tensors, {})
    monkeypatch.setattr("pipeline.system.tensor_files.check_room", lambda needs: None)
    with pytest.raises(DiskFullError, match=r"disk/state: cannot be written, the disk is full"):
        save_tensors(disk / "state", tensors, {})
    assert list(disk.iterdir()) == []
