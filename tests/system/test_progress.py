"""Progress lines and bars, prefetching in threads."""

import logging
import time
from collections.abc import Iterator

import pytest
import torch

from pipeline.system.progress import prefetch_in_threads, progress, stream_to_cpu


@pytest.fixture(autouse=True)
def info(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "carb")


def test_progress_passes_the_items_through_and_ends_with_a_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert list(progress(iter("abc"), label="photos", total=5, done=2)) == ["a", "b", "c"]
    assert list(progress([], label="nothing", total=0)) == []
    assert [message[:16] for message in caplog.messages] == ["photos 5/5 done ", "nothing 0/0 done"]
    with pytest.raises(ZeroDivisionError):
        list(progress((1 / number for number in (1, 0)), label="x", total=2))


def test_progress_logs_speed_and_remaining_time_from_time_to_time(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter(range(0, 1000, 4))
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: next(clock))
        assert len(list(progress(range(6), label="CLIP", total=100, done=50, unit="views"))) == 6
    assert caplog.messages == [
        "CLIP 53/100: 0.25 views/s, 3 min left",
        "CLIP 56/100: 0.25 views/s, 3 min left",
        "CLIP 56/100 done in 28 s, 0.21 views/s",
    ]


def test_the_remaining_time_counts_that_later_items_take_longer(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    costs = [1.0] * 4 + [9.0] * 4  # four views of the whole image, four magnified ones
    clock = iter(range(0, 1000, 4))
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: next(clock))
        assert list(progress("abcdefgh", label="CLIP", total=8, costs=costs)) == list("abcdefgh")
    assert "CLIP 3/8: 0.25 images/s, 2 min left" in caplog.messages  # 37 / 3 of 12 s
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(progress("ab", label="CLIP", total=2, costs=[1.0, 9.0])) == ["a", "b"]


def test_lines_of_a_long_run_become_rarer(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = 36_000
    clock = iter(range(seconds + 2))
    with monkeypatch.context() as patch:
        patch.setattr(time, "monotonic", lambda: next(clock))
        steps = progress(range(seconds), label="t", total=seconds, unit="steps", images=8)
        assert len(list(steps)) == seconds
    assert 50 < len(caplog.messages) < 100
    assert caplog.messages[0] == "t 10/36000: 1.0 steps/s, 8.0 images/s, 10 h 00 min left"
    assert caplog.messages[-1] == "t 36000/36000 done in 10 h 00 min, 1.0 steps/s, 8.0 images/s"


def test_progress_on_a_terminal_is_a_bar(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    assert list(progress("ab", label="photos", total=2, unit="steps", images=8)) == ["a", "b"]
    shown = capsys.readouterr().err
    assert all(word in shown for word in ("photos", "2/2", "steps/s", "images/s"))


def test_details_are_shown_on_the_line_of_a_narrow_terminal_and_in_the_log(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    text = "loss 1.78, lambda 0.79, reliable 72 %, lr 0.0012"
    list(progress("ab", label="train", total=600, done=598, details=lambda: text))
    assert caplog.messages[-1].endswith(f"images/s; {text}")
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "80")
    list(progress("ab", label="train", total=600, done=598, details=lambda: text))
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "600/600" in line]
    assert "loss 1.78, lambda 0.79, reliable 72 %" in line


def test_prefetching_keeps_the_order_and_stays_a_few_items_ahead() -> None:
    taken: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(50):
            taken.append(number)
            yield number

    squares = prefetch_in_threads(numbers(), lambda number: number * number, threads=2)
    assert [next(squares) for _ in range(3)] == [0, 1, 4]
    assert len(taken) <= 3 + 4  # twice as many as threads may wait
    assert list(squares) == [number * number for number in range(3, 50)]


def test_an_error_in_a_thread_is_raised_in_place_of_its_result() -> None:
    results = prefetch_in_threads([1, 2, 0, 4], lambda number: 1 / number, threads=3)
    assert [next(results), next(results)] == [1.0, 0.5]
    with pytest.raises(ZeroDivisionError):
        next(results)


@pytest.mark.parametrize("device", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_tensors_are_copied_in_order(device: str) -> None:
    made = (torch.full((2,), number, device=device) for number in range(3))
    assert [tensor.tolist() for tensor in stream_to_cpu(made)] == [[0, 0], [1, 1], [2, 2]]
