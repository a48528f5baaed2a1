"""Atomic writing, locks, JSON, digests; unusual file systems."""

import errno
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.system import files
from pipeline.system.files import (
    atomic_path,
    copy_into,
    file_digest,
    fingerprint,
    locked,
    put_in_place,
    remove,
    write_json,
)
from tests.helpers import ROOT

Write = Callable[[Path, str], None]


def write_file(path: Path, text: str) -> None:
    path.write_text(text)


def write_folder(path: Path, text: str) -> None:
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "a.txt").write_text(text)
    if text == "old":
        (path / "stale.txt").write_text(text)


def replace(out: Path, text: str) -> None:
    """Write a folder as commands do."""
    with atomic_path(out) as draft:
        write_folder(draft, text)


NEW = {"inner/a.txt": "new"}
KINDS = pytest.mark.parametrize("write", [write_file, write_folder])


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


@KINDS
def test_the_new_content_replaces_the_old_as_a_whole(tmp_path: Path, write: Write) -> None:
    target = tmp_path / "deep" / "er" / "out"
    for text in ("old", "new"):
        with atomic_path(target) as draft:
            write(draft, text)
            assert draft.parent == target.parent
    assert list(tree(target.parent).values()) == ["new"]  # 'stale.txt' is gone with the old


def test_a_file_gets_the_mode_of_the_umask(tmp_path: Path) -> None:
    (tmp_path / "usual").write_text("x")
    with atomic_path(tmp_path / "out") as draft:
        draft.mkdir()
        (draft / "private").write_text("x")
        (draft / "private").chmod(0o600)
    assert (tmp_path / "out/private").stat().st_mode == (tmp_path / "usual").stat().st_mode


@KINDS
@pytest.mark.parametrize("there", [True, False])
def test_an_error_leaves_the_old_content_and_no_draft(
    tmp_path: Path, write: Write, there: bool
) -> None:
    target = tmp_path / "out"
    if there:
        write(target, "old")
    before = tree(tmp_path)
    with pytest.raises(KeyboardInterrupt), atomic_path(target) as draft:  # noqa: PT012
        write(draft, "new")
        raise KeyboardInterrupt
    assert tree(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if there else [])


@KINDS
def test_a_link_is_replaced_and_never_written_through(tmp_path: Path, write: Write) -> None:
    cached, out = tmp_path / "cache", tmp_path / "work" / "out"
    out.parent.mkdir()
    for _ in range(2):  # first a dangling link
        out.symlink_to(cached)
        with atomic_path(out) as draft:
            write(draft, "new")
        assert not out.is_symlink()
        assert (out.read_text() if write is write_file else tree(out)["inner/a.txt"]) == "new"
        assert [path.name for path in out.parent.iterdir()] == ["out"]
        if cached.exists():
            assert set(tree(tmp_path / "cache").values()) <= {"old"}
            assert write is write_folder or cached.read_text() == "old"
        else:
            write(cached, "old")
        remove(out)


def test_a_folder_replaces_a_file_and_the_draft_of_a_killed_run_is_not_used(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "out") as draft:
        draft.write_text("old")
    write_folder(draft, "old")
    replace(tmp_path / "out", "new")
    assert tree(tmp_path) == {"out/inner/a.txt": "new"}


def test_hidden_files_survive_a_run_that_was_killed_between_two_renames(tmp_path: Path) -> None:
    write_folder(tmp_path / ".out.old", "old")
    (tmp_path / ".out.old/.notes").write_text("mine")
    replace(tmp_path / "out", "new")
    assert tree(tmp_path) == {"out/inner/a.txt": "new", "out/.notes": "mine"}


def test_removing_a_link_spares_its_target(tmp_path: Path) -> None:
    write_folder(tmp_path / "cache", "old")
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    for name in ("link", "absent"):
        remove(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    remove(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


HOLD = """
import os, sys
from pathlib import Path
from pipeline.system.files import locked
with locked(Path(sys.argv[1])):
    if not os.fork():  # as a loader's worker
        print("held", flush=True)  # only here the fork is complete
        sys.stdin.read()
        os._exit(0)
    os.wait()
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Another process that writes ``out`` until its input ends."""
    command = [sys.executable, "-c", HOLD, str(tmp_path / "out")]
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=ROOT, **pipes) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_path_that_another_run_writes_is_refused_until_it_ends(
    holder: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    message = r"out: another run is writing it; wait for it to end, or stop it"
    with pytest.raises(ValueError, match=message):
        write_json(tmp_path / "out", [1])
    write_json(tmp_path / "other", [1])
    holder.communicate("")
    write_json(tmp_path / "out", [1])
    assert sorted(tree(tmp_path)) == ["other", "out"]


def test_a_killed_run_holds_nothing_though_its_child_lives(
    holder: "subprocess.Popen[str]", tmp_path: Path
) -> None:
    holder.kill()
    holder.wait()
    assert (tmp_path / ".out.lock").exists()
    write_json(tmp_path / "out", [1])
    assert sorted(tree(tmp_path)) == ["out"]


def test_locks_of_one_path_may_be_nested(tmp_path: Path) -> None:
    out = tmp_path / "out"
    check = "from pathlib import Path; from pipeline.system.files import locked\n"
    check += f"with locked(Path({str(out)!r})): pass"
    with locked(out):
        write_json(out, [1])
        other = subprocess.run([sys.executable, "-c", check], cwd=ROOT, capture_output=True)
        assert b"another run is writing it" in other.stderr
    assert sorted(tree(tmp_path)) == ["out"]


def test_a_failing_rename_leaves_the_old_content(tmp_path: Path) -> None:
    write_folder(tmp_path / "old", "old")
    with pytest.raises(OSError, match=r"subdirectory of itself|Invalid argument"):
        put_in_place(tmp_path, tmp_path / "old")
    assert tree(tmp_path / "old") == {"inner/a.txt": "old", "stale.txt": "old"}


def test_json_has_known_bytes_and_null_for_what_is_not_finite(tmp_path: Path) -> None:
    path, nan = tmp_path / "x.json", float("nan")
    write_json(path, {"b": [1, 0.5], "a": None})
    assert path.read_bytes() == b'{\n  "b": [\n    1,\n    0.5\n  ],\n  "a": null\n}\n'
    write_json(path, {"name": "caf\u00e9", "nan": nan, "deep": [{"x": (nan, 1e999, 2.0)}]})
    read = json.loads(path.read_text("utf-8"))
    assert read == {"name": "caf\u00e9", "nan": None, "deep": [{"x": [None, None, 2.0]}]}
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(path, {"x": {1, 2}})
    assert json.loads(path.read_text("utf-8")) == read


def test_a_files_digest_is_the_sha256_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(tmp_path / "x") == expected


def test_a_fingerprint_depends_on_values_and_order_of_lists_not_of_keys() -> None:
    one = {"a": [1, 2], "b": {"c": 0.1, "d": None}}
    assert fingerprint(one) == fingerprint({"b": {"d": None, "c": 0.1}, "a": [1, 2]})
    others = [{**one, "a": [2, 1]}, {**one, "b": {}}, {**one, "a": ["1", 2]}, [one]]
    assert len({fingerprint(other) for other in [one, *others]}) == 5


def mount(folder: Path, *arguments: str) -> None:
    command = ["mount", *arguments]
    if (
        shutil.which("mount") is None
        or subprocess.run(command, cwd=folder, capture_output=True).returncode
    ):
        pytest.skip("mounting is not permitted here")


@pytest.mark.parametrize("kind", ["bind", "tmpfs"])
def test_the_content_of_a_mounted_folder_is_replaced(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "my predictions"
    for folder in (out, tmp_path / "source"):
        folder.mkdir()
    mount(
        tmp_path, *(["--bind", "source"] if kind == "bind" else ["-t", "tmpfs", "tmpfs"]), out.name
    )
    try:
        (out / ".DS_Store").write_text("hidden")
        (out / "lost+found").mkdir()
        for text in ("old", "new"):
            replace(out, text)
        assert tree(out) == NEW | {".DS_Store": "hidden"}
        replace(tmp_path / "made", "made")
        put_in_place(tmp_path / "made", out)  # maybe from another disk
        assert tree(out) == {".DS_Store": "hidden", "inner/a.txt": "made"}
        assert (out / "lost+found").is_dir()
        assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []
    finally:
        subprocess.run(["umount", out.name], cwd=tmp_path, check=True)


def test_the_content_of_a_mounted_file_is_replaced(tmp_path: Path) -> None:
    for name in ("source", "out.json"):
        (tmp_path / name).write_text("old")
    mount(tmp_path, "--bind", "source", "out.json")
    try:
        write_json(tmp_path / "out.json", [1])
        assert (tmp_path / "source").read_text() == "[\n  1\n]\n"
    finally:
        subprocess.run(["umount", "out.json"], cwd=tmp_path, check=True)


@pytest.mark.parametrize("number", [errno.EBUSY, errno.EXDEV])
def test_the_content_of_a_folder_that_cannot_be_renamed_is_replaced(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mount that no table lists; a folder of a lower layer of Docker's."""
    replace(tmp_path / "out", "old")
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if path == tmp_path / "out":
            raise OSError(number, "refused")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    replace(tmp_path / "out", "new")
    assert tree(tmp_path / "out") == NEW


@pytest.mark.parametrize("name", [".", "..", "../here"])
def test_the_content_of_the_current_folder_is_replaced(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    Path(".hidden").touch()
    for text in ("old", "new") if name != ".." else ("new",):
        replace(Path(name), text)
    assert Path.cwd().is_dir()
    assert set(tree(tmp_path).values()) == {"new", ""}
    assert (tmp_path / "here/.hidden").exists()


def test_a_folder_in_a_read_only_one_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(files.os, "access", lambda path, mode: path != tmp_path)
    for text in ("old", "new"):
        with atomic_path(tmp_path / "out") as draft:
            assert draft.parent == tmp_path / "out"
            write_folder(draft, text)
    assert tree(tmp_path / "out") == NEW


@pytest.mark.parametrize("name", ["x" * 255, "\u00e4" * 127, "x" * 251 + ".png"])
def test_the_longest_names_are_written(name: str, tmp_path: Path) -> None:
    write_json(tmp_path / name, [1])
    for text in ("old", "new"):
        replace(tmp_path / name, text)
    assert tree(tmp_path / name) == NEW
    with locked(tmp_path / name):
        names = [path.name for path in tmp_path.iterdir() if path.name.startswith(".")]
    assert [len(each) <= 143 for each in names] == [True]  # of encrypted home folders


def refuse_with(number: int) -> object:
    def refuse(*args: object, **kwargs: object) -> None:
        raise OSError(number, os.strerror(number))

    return refuse


def test_a_disk_without_modes_and_flushing_is_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "chmod", refuse_with(errno.EPERM))
    monkeypatch.setattr(files.os, "fsync", refuse_with(errno.ENOTSUP))
    replace(tmp_path / "out", "new")
    copy_into(tmp_path / "out", tmp_path / "copy")
    assert tree(tmp_path / "copy") == tree(tmp_path / "out") == NEW


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC])
def test_a_disk_that_fails_is_an_error(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files.os, "fsync", refuse_with(number))
    with pytest.raises((OSError, ValueError)):
        replace(tmp_path / "out", "new")
    assert list(tmp_path.iterdir()) == []
