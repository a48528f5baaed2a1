"""A request to stop ends a command between two pieces of work."""

import os
import signal
import threading

import pytest

from pipeline.runtime import command, progress
from pipeline.stopping import SIGNALS, StoppedError, asked_to_stop, stopping_politely


def ask(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_item_in_hand_is_finished_and_the_code_is_that_of_the_signal(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    finished: list[int] = []

    @command
    def main() -> None:
        for item in progress(range(5), label="photos", total=5):
            if item == 2:
                ask(number)
            finished.append(item)

    with pytest.raises(SystemExit) as ended:
        main()
    assert (finished, ended.value.code) == ([0, 1, 2], 128 + number)
    said = f"stopped by {number.name}, photos 3/5; what is finished is kept, run again\n"
    assert capsys.readouterr().err == said


def test_a_loop_may_hear_the_request_itself() -> None:
    with stopping_politely():
        for item in progress(range(3), label="train", total=3, stops=False):
            assert asked_to_stop() == (item > 1)
            if item == 1:
                ask(signal.SIGTERM)
        assert item == 2


def test_a_resumed_loop_says_how_far_the_whole_work_is() -> None:
    items = progress(range(3), label="photos", total=9, done=7)
    with stopping_politely(), pytest.raises(StoppedError, match="photos 8/9;"):
        [ask(signal.SIGTERM) for _ in items]


def test_sigterm_may_come_twice_and_a_second_ctrl_c_ends_at_once() -> None:
    with stopping_politely():
        ask(signal.SIGTERM)
        ask(signal.SIGTERM)
        ask(signal.SIGINT)
        assert asked_to_stop()
        child = os.fork()
        if not child:
            ask(signal.SIGINT)
            os._exit(0)  # not reached
        _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGINT
    assert not asked_to_stop()


def test_handlers_are_as_before_when_the_command_is_over() -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    with stopping_politely():
        assert [signal.getsignal(number) for number in SIGNALS] != before
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_thread_that_runs_a_command_leaves_signals_alone() -> None:
    seen: list[object] = []

    def run() -> None:
        with stopping_politely():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [signal.getsignal(signal.SIGTERM)]
