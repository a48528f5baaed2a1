"""Outputs on unusual file systems: mounts, long names, no modes, no flushing."""

import errno
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from pipeline.system import files
from pipeline.system.files import atomic_path, copy_into, locked, put_in_place, write_json


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


def write(out: Path, text: str) -> None:
    """A folder, as commands write it."""
    with atomic_path(out) as draft:
        (draft / "inner").mkdir(parents=True)
        (draft / f"inner/{text}.txt").write_text(text)


@pytest.fixture(params=["bind", "tmpfs"])
def mounted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    """A folder that another one, of the same disk or not, is mounted at; its name has a space."""
    out = tmp_path / "my answers"
    out.mkdir()
    (tmp_path / "source").mkdir()
    kind = ["--bind", "source"] if request.param == "bind" else ["-t", "tmpfs", "tmpfs"]
    command = ["mount", *kind, out.name]
    if (
        shutil.which("mount") is None
        or subprocess.run(command, cwd=tmp_path, capture_output=True).returncode
    ):
        pytest.skip("mounting is not permitted here")
    yield out
    subprocess.run(["umount", out.name], cwd=tmp_path, check=True)


def test_a_mounted_folder_is_filled(mounted: Path) -> None:
    (mounted / ".DS_Store").write_text("hidden")
    (mounted / "lost+found").mkdir()
    for text in ("old", "new"):
        write(mounted, text)
        assert tree(mounted) == {".DS_Store": "hidden", f"inner/{text}.txt": text}
    write(mounted.with_name("made"), "made")
    put_in_place(mounted.with_name("made"), mounted)  # maybe from another disk
    assert tree(mounted) == {".DS_Store": "hidden", "inner/made.txt": "made"}
    assert (mounted / "lost+found").is_dir()
    assert [path.name for path in mounted.parent.iterdir() if path.name.startswith(".")] == []


def test_a_mounted_file_is_written_by_its_content(tmp_path: Path) -> None:
    for name in ("source", "out.json"):
        (tmp_path / name).write_text("old")
    command = ["mount", "--bind", "source", "out.json"]
    if subprocess.run(command, cwd=tmp_path, capture_output=True).returncode:
        pytest.skip("mounting is not permitted here")
    try:
        write_json(tmp_path / "out.json", [1])
        assert (tmp_path / "source").read_text() == "[\n  1\n]\n"
    finally:
        subprocess.run(["umount", "out.json"], cwd=tmp_path, check=True)


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV])
def test_a_folder_that_cannot_be_renamed_is_filled(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount that no table lists; a folder of a lower layer of Docker's."""
    write(tmp_path / "out", "old")
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path == tmp_path / "out":
            raise OSError(number, "refused")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    write(tmp_path / "out", "new")
    assert tree(tmp_path) == {"out/inner/new.txt": "new"}


@pytest.mark.parametrize("name", [".", "..", "../here"])
def test_the_current_folder_is_filled(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    (tmp_path / "here/.hidden").touch()
    write(Path(name), "old") if name != ".." else None
    write(Path(name), "new")
    assert Path.cwd().is_dir()
    assert "new" in {path.stem for path in tmp_path.rglob("*.txt")}
    assert "old" not in {path.stem for path in tmp_path.rglob("*.txt")}
    assert (tmp_path / "here/.hidden").exists()


@pytest.mark.parametrize("name", ["x" * 255, "\u00e4" * 127, "x" * 251 + ".png"])
def test_any_name_that_a_disk_takes_is_written(name: str, tmp_path: Path) -> None:
    write_json(tmp_path / name, [1])
    (tmp_path / name).unlink()
    for text in ("old", "new"):
        write(tmp_path / name, text)
    assert tree(tmp_path) == {f"{name}/inner/new.txt": "new"}
    with locked(tmp_path / name):
        names = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert [len(each) <= 143 for each in names] == [True]  # of encrypted home folders


def refuse_with(number: int) -> object:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("number", [errno.EPERM])
def test_a_disk_without_modes_is_written_to(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "chmod", refuse_with(number))
    write(tmp_path / "out", "new")
    copy_into(tmp_path / "out", tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(tmp_path / "out") == {"inner/new.txt": "new"}


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOTSUP])
def test_a_disk_that_does_not_flush_is_written_to(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.os, "fsync", refuse_with(number))
    write(tmp_path / "out", "new")
    assert tree(tmp_path) == {"out/inner/new.txt": "new"}


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_is_an_error(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.os, "fsync", refuse_with(number))
    with pytest.raises((OSError, ValueError)):
        write(tmp_path / "out", "new")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_one_that_cannot_be_written_is_filled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(files.os, "access", lambda path, mode: path != tmp_path)
    for text in ("old", "new"):
        with atomic_path(tmp_path / "out") as draft:
            assert draft.parent == tmp_path / "out"
            (draft / "inner").mkdir(parents=True)
            (draft / f"inner/{text}.txt").write_text(text)
    assert tree(tmp_path) == {"out/inner/new.txt": "new"}
