"""Atomic writing, locks, JSON and digests."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from pipeline.system.files import (
    atomic_path,
    file_digest,
    fingerprint,
    locked,
    put_in_place,
    remove,
    write_json,
)
from tests.helpers import ROOT


def write_file(path: Path, text: str) -> None:
    path.write_text(text)


def write_folder(path: Path, text: str) -> None:
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "a.txt").write_text(text)
    if text == "old":
        (path / "stale.txt").write_text(text)


def tree(folder: Path) -> dict[str, str]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


KINDS = pytest.mark.parametrize("write", [write_file, write_folder])
Write = Callable[[Path, str], None]


@KINDS
def test_what_was_written_replaces_the_old_whole(tmp_path: Path, write: Write) -> None:
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
@pytest.mark.parametrize("dangling", [False, True])
def test_a_link_is_replaced_and_never_written_through(
    tmp_path: Path, write: Write, dangling: bool
) -> None:
    cached, target = tmp_path / "cache", tmp_path / "work" / "out"
    target.parent.mkdir()
    if not dangling:
        write(cached, "old")
    before = tree(cached) if write is write_folder else {}
    target.symlink_to(cached)
    with atomic_path(target) as draft:
        write(draft, "new")
    assert not target.is_symlink()
    assert (target.read_text() if write is write_file else tree(target)["inner/a.txt"]) == "new"
    assert [path.name for path in target.parent.iterdir()] == ["out"]
    if not dangling:
        assert (cached.read_text() if write is write_file else tree(cached)) == (before or "old")


def test_a_folder_replaces_a_file_and_the_draft_of_a_killed_run_is_not_used(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "out") as draft:
        draft.write_text("old")
    write_folder(draft, "old")
    with atomic_path(tmp_path / "out") as draft:
        write_folder(draft, "new")
    assert tree(tmp_path) == {"out/inner/a.txt": "new"}


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
        sys.stdin.read()
        os._exit(0)
    print("held", flush=True)
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


def test_what_cannot_be_moved_leaves_the_old_in_its_place(tmp_path: Path) -> None:
    write_folder(tmp_path / "old", "old")
    with pytest.raises(OSError, match=r"subdirectory of itself|Invalid argument"):
        put_in_place(tmp_path, tmp_path / "old")
    assert tree(tmp_path / "old") == {"inner/a.txt": "old", "stale.txt": "old"}


def test_json_is_written_to_the_byte_with_null_for_what_is_not_finite(tmp_path: Path) -> None:
    path, nan = tmp_path / "x.json", float("nan")
    for _ in range(2):
        write_json(path, {"b": [1, 0.5], "a": None})
        expected = b'{\n  "b": [\n    1,\n    0.5\n  ],\n  "a": null\n}\n'
        assert path.read_bytes() == expected
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
    same = {"b": {"d": None, "c": 0.1}, "a": [1, 2]}
    assert fingerprint(one) == fingerprint(same)
    others = [{**one, "a": [2, 1]}, {**one, "b": {}}, {**one, "a": ["1", 2]}, [one]]
    assert len({fingerprint(other) for other in [one, *others]}) == 5
