"""Progress, threads, memory, precision, clear failure: what every stage leans on."""

import logging
import time
from collections.abc import Iterator

import pytest
import torch
import typer
from typer.testing import CliRunner

from pipeline.system.command import command, memory_hint
from pipeline.system.devices import pick_precision, start_fabric
from pipeline.system.progress import prefetch_in_threads, progress, stream_to_cpu


def test_progress_passes_the_items_through_and_says_when_it_is_done(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "carb")
    assert list(progress(iter("abc"), label="photos", total=5, done=2)) == ["a", "b", "c"]
    assert list(progress([], label="nothing", total=0)) == []
    assert [message[:16] for message in caplog.messages] == ["photos 5/5 done ", "nothing 0/0 done"]


def test_progress_speaks_now_and_then_of_speed_and_time_left(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "carb")
    clock = iter(range(0, 1000, 4))
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: next(clock))
        assert len(list(progress(range(6), label="CLIP", total=100, done=50, unit="views"))) == 6
    assert caplog.messages == [
        "CLIP 53/100: 0.25 views/s, 3 min left",
        "CLIP 56/100: 0.25 views/s, 3 min left",
        "CLIP 56/100 done in 28 s, 0.21 views/s, 3 min left",
    ]


def test_a_long_run_speaks_less_and_less_often(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "carb")
    seconds = 36_000
    clock = iter(range(seconds + 2))
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: next(clock))
        steps = progress(range(seconds), label="t", total=seconds, unit="steps", images=8)
        assert len(list(steps)) == seconds
    assert 50 < len(caplog.messages) < 100
    assert caplog.messages[0] == "t 10/36000: 1.0 steps/s, 8.0 images/s, 10 h 00 min left"
    assert caplog.messages[-1] == "t 36000/36000 done in 10 h 00 min, 1.0 steps/s, 8.0 images/s"


def test_progress_lets_errors_and_early_ends_through() -> None:
    def broken() -> object:
        yield 1
        raise ZeroDivisionError

    items = progress(broken(), label="x", total=2)  # type: ignore[arg-type, var-annotated]
    assert next(items) == 1
    with pytest.raises(ZeroDivisionError):
        next(items)


def test_progress_on_a_terminal_is_a_bar(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "carb")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(progress("ab", label="photos", total=2, unit="steps", images=8)) == ["a", "b"]
    shown = capsys.readouterr().err
    assert "photos" in shown
    assert "steps/s" in shown
    assert "images/s" in shown


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


def test_a_lack_of_memory_names_what_to_lower() -> None:
    message = r"^out of memory \(.*can't allocate memory.*\); lower train.batch_size$"
    with pytest.raises(ValueError, match=message), memory_hint("lower train.batch_size"):
        torch.empty(2**50)


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.\nMore lines"),
        RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed."),
    ],
)
def test_every_lack_of_memory_is_one_line(error: Exception) -> None:
    with pytest.raises(ValueError, match=r"^out of memory \([^\n]*\); wait$"), memory_hint("wait"):
        raise error


def test_other_errors_are_no_lack_of_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), memory_hint("wait"):
        raise RuntimeError("shapes differ")


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

    done = prefetch_in_threads(numbers(), lambda number: number * number, threads=2)
    assert [next(done) for _ in range(3)] == [0, 1, 4]
    assert len(taken) <= 3 + 4  # twice as many as threads may wait
    assert list(done) == [number * number for number in range(3, 50)]


def test_what_fails_in_a_thread_is_raised_where_its_result_would_come() -> None:
    done = prefetch_in_threads([1, 2, 0, 4], lambda number: 1 / number, threads=3)
    assert [next(done), next(done)] == [1.0, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(done)


def test_tensors_are_fetched_in_order() -> None:
    made = (torch.full((2,), number) for number in range(3))
    assert [tensor.tolist() for tensor in stream_to_cpu(made)] == [[0, 0], [1, 1], [2, 2]]


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_tensors_of_a_gpu_are_fetched_in_order() -> None:
    made = (torch.full((2,), number, device="cuda") for number in range(3))
    assert [tensor.tolist() for tensor in stream_to_cpu(made)] == [[0, 0], [1, 1], [2, 2]]
