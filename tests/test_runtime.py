"""Whole files, digests, progress, clear failure: what every stage leans on."""

import json
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import typer
from typer.testing import CliRunner

from pipeline.runtime import (
    ahead,
    atomic_path,
    command,
    fetched,
    file_digest,
    fingerprint,
    pick_precision,
    progress,
    remove,
    start_fabric,
    write_json,
)


def write_file(path: Path, text: str) -> None:
    path.write_text(text)


def write_folder(path: Path, text: str) -> None:
    (path / "inner").mkdir(parents=True)
    (path / "inner" / "a.txt").write_text(text)
    if text == "old":
        (path / "stale.txt").write_text(text)


def tree(folder: Path) -> dict[str, str]:
    """Every file below, followed by nothing: what a reader of ``folder`` finds."""
    files = (path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.read_text() for path in files}


KINDS = pytest.mark.parametrize("write", [write_file, write_folder])
Write = Callable[[Path, str], None]


@KINDS
def test_what_was_written_takes_the_place_of_the_old_whole(tmp_path: Path, write: Write) -> None:
    target = tmp_path / "deep" / "er" / "out"
    for text in ("old", "new"):
        with atomic_path(target) as draft:
            write(draft, text)
            assert draft.parent == target.parent
    assert list(tree(target.parent).values()) == ["new"]  # 'stale.txt' is gone with the old


def test_a_file_is_readable_as_the_umask_says_whatever_wrote_it(tmp_path: Path) -> None:
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
def test_a_block_that_writes_nothing_leaves_the_old_content(tmp_path: Path, write: Write) -> None:
    write(tmp_path / "out", "old")
    before = tree(tmp_path)
    with pytest.raises(FileNotFoundError), atomic_path(tmp_path / "out"):
        pass
    assert tree(tmp_path) == before


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


def test_a_draft_that_a_killed_run_left_is_not_taken_up(tmp_path: Path) -> None:
    with atomic_path(tmp_path / "out") as draft:
        pass_by = draft
        write_folder(draft, "new")
    write_folder(pass_by, "old")
    with atomic_path(tmp_path / "out") as draft:
        write_folder(draft, "new")
    assert tree(tmp_path) == {"out/inner/a.txt": "new"}


def test_a_folder_takes_the_place_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("old")
    with atomic_path(tmp_path / "out") as draft:
        write_folder(draft, "new")
    assert tree(tmp_path) == {"out/inner/a.txt": "new"}


def test_removing_a_link_spares_what_it_leads_to(tmp_path: Path) -> None:
    write_folder(tmp_path / "cache", "old")
    (tmp_path / "link").symlink_to(tmp_path / "cache")
    for name in ("link", "absent"):
        remove(tmp_path / name)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]
    remove(tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_json_has_null_for_what_is_no_finite_number(tmp_path: Path) -> None:
    nan, content = float("nan"), {"b": 1, "a": [0.1, (2.0, None)], "name": "caf\u00e9"}
    write_json(tmp_path / "x.json", {**content, "nan": nan, "deep": [{"x": (nan, 1e999)}]})
    read = json.loads((tmp_path / "x.json").read_text("utf-8"))
    assert read == {
        "b": 1,
        "a": [0.1, [2.0, None]],
        "name": "caf\u00e9",
        "nan": None,
        "deep": [{"x": [None, None]}],
    }


def test_json_is_written_to_the_byte_and_keeps_the_order_of_keys(tmp_path: Path) -> None:
    for _ in range(2):
        write_json(tmp_path / "x.json", {"b": [1, 0.5], "a": None})
        expected = b'{\n  "b": [\n    1,\n    0.5\n  ],\n  "a": null\n}\n'
        assert (tmp_path / "x.json").read_bytes() == expected


def test_what_is_no_json_leaves_the_old_file(tmp_path: Path) -> None:
    write_json(tmp_path / "x.json", [1])
    with pytest.raises(TypeError, match="not JSON serializable"):
        write_json(tmp_path / "x.json", {"x": {1, 2}})
    assert tree(tmp_path) == {"x.json": "[\n  1\n]\n"}


def test_a_files_digest_is_the_sha256_of_its_bytes(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert file_digest(tmp_path / "x") == expected


def test_a_fingerprint_knows_values_and_order_of_lists_not_of_keys() -> None:
    one = {"a": [1, 2], "b": {"c": 0.1, "d": None}}
    same = {"b": {"d": None, "c": 0.1}, "a": [1, 2]}
    assert fingerprint(one) == fingerprint(same)
    others = [{**one, "a": [2, 1]}, {**one, "b": {}}, {**one, "a": ["1", 2]}, [one]]
    assert len({fingerprint(other) for other in [one, *others]}) == 5


def test_progress_passes_the_items_through_and_says_when_it_is_done(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "carb")
    assert list(progress(iter("abc"), label="photos", total=5, done=2)) == ["a", "b", "c"]
    assert list(progress([], label="nothing", total=0)) == []
    assert [message[:16] for message in caplog.messages] == ["photos 5/5 done ", "nothing 0/0 done"]


def test_progress_speaks_every_ten_seconds_of_speed_and_time_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "carb")
    clock = iter(range(0, 1000, 4))
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: next(clock))
        assert len(list(progress(range(6), label="CLIP", total=100, done=50))) == 6
    assert caplog.messages == [
        "CLIP 53/100, 0.2/s, 188 s left",
        "CLIP 56/100, 0.2/s, 176 s left",
        "CLIP 56/100 done in 28.0 s",
    ]


def test_progress_lets_errors_and_early_ends_through() -> None:
    def broken() -> object:
        yield 1
        raise ZeroDivisionError

    items = progress(broken(), label="x", total=2)  # type: ignore[arg-type, var-annotated]
    assert next(items) == 1
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_progress_on_a_terminal_is_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(progress("ab", label="photos", total=2)) == ["a", "b"]
    assert "photos" in capsys.readouterr().err


@pytest.mark.parametrize(
    "error",
    [ValueError("carb.tau must be\n  small"), FileNotFoundError(2, "No such file", "x.csv")],
)
def test_a_users_fault_is_one_line_and_exit_code_2(
    error: Exception, capsys: pytest.CaptureFixture[str]
) -> None:
    @command
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert caught.value.__suppress_context__
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"error: {' '.join(str(error).split())}\n"


@pytest.mark.parametrize("error", [KeyError("x"), RuntimeError("x"), AssertionError()])
def test_our_own_fault_keeps_its_traceback(error: Exception) -> None:
    @command
    def main() -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        main()
    assert caught.value is error


def test_a_command_is_a_command_line_with_its_own_options_and_result() -> None:
    @command
    def main(count: int = 3) -> int:
        """Count."""
        if count < 0:
            raise ValueError("count must not be negative")
        return count

    assert main(count=4) == 4
    app = typer.Typer(add_completion=False)
    app.command()(main)
    result = CliRunner().invoke(app, ["--count", "-1"])
    assert (result.exit_code, result.output) == (2, "error: count must not be negative\n")
    assert CliRunner().invoke(app, ["--count", "many"]).exit_code == 2
    assert CliRunner().invoke(app, ["--count", "1"]).exit_code == 0


@pytest.mark.parametrize("wanted", ["bf16-mixed", "32-true"])
@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_precision_that_was_asked_for_is_taken(wanted: str, device: str) -> None:
    assert pick_precision(wanted, device) == wanted


@pytest.mark.parametrize(("units", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_is_bfloat16_where_a_gpu_multiplies_in_it(
    monkeypatch: pytest.MonkeyPatch, units: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: units)
    pick_precision.cache_clear()
    assert pick_precision("auto", "cuda") == expected
    pick_precision.cache_clear()


def test_auto_on_a_processor_is_decided_once_a_run() -> None:
    picked = {pick_precision("auto", "cpu") for _ in range(10)}
    assert picked in ({"bf16-mixed"}, {"32-true"})


def test_fabric_starts_on_this_machine_and_is_deterministic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CARB_DEVICES", raising=False)
    fabric = start_fabric("32-true")
    assert (fabric.world_size, fabric.global_rank) == (1, 0)
    assert torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)


def test_work_in_threads_keeps_the_order_and_stays_a_few_items_ahead() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    done = ahead(numbers(), lambda number: number * number, threads=2)
    assert [next(done) for _ in range(3)] == [0, 1, 4]
    assert len(taken) <= 3 + 4  # twice as many as threads may wait
    assert list(done) == [number * number for number in range(3, 50)]


def test_what_fails_in_a_thread_is_raised_where_its_result_would_come() -> None:
    done = ahead([1, 2, 0, 4], lambda number: 1 / number, threads=3)
    assert [next(done), next(done)] == [1.0, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(done)


def test_tensors_are_fetched_in_order() -> None:
    made = (torch.full((2,), number) for number in range(3))
    assert [tensor.tolist() for tensor in fetched(made)] == [[0, 0], [1, 1], [2, 2]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_tensors_of_a_gpu_are_fetched_in_order() -> None:
    made = (torch.full((2,), number, device="cuda") for number in range(3))
    assert [tensor.tolist() for tensor in fetched(made)] == [[0, 0], [1, 1], [2, 2]]
