"""A stop signal ends a command after the current item."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator

import pytest
from torch.utils.data import DataLoader, Dataset

from pipeline.system.command import command
from pipeline.system.progress import progress
from pipeline.system.stop import (
    SIGNALS,
    graceful_shutdown,
    ignore_signals_of_others,
    stop_requested,
)
from tests.helpers import ROOT


@pytest.fixture(autouse=True)
def with_a_terminal() -> Iterator[None]:
    """Handle SIGHUP, even if the tests were started by nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def send(number: signal.Signals) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_current_item_is_finished_and_the_exit_code_is_that_of_the_signal(
    number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    finished: list[int] = []
    before = [signal.getsignal(number) for number in SIGNALS]

    @command
    def main() -> None:
        for item in progress(range(5), label="photos", total=9, done=4):
            if item == 2:
                send(number)
            finished.append(item)

    with pytest.raises(SystemExit) as ended:
        main()
    assert (finished, ended.value.code) == ([0, 1, 2], 128 + number)
    message = f"stopped by {number.name}, photos 7/9; finished work is kept, run again\n"
    assert capsys.readouterr().err == message
    assert [signal.getsignal(number) for number in SIGNALS] == before


def test_a_loop_may_handle_the_stop_itself() -> None:
    with graceful_shutdown():
        for item in progress(range(3), label="train", total=3, stops=False):
            assert stop_requested() == (item > 1)
            if item == 1:
                send(signal.SIGTERM)
        assert item == 2


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of fork
def test_sigterm_may_come_twice_and_a_second_ctrl_c_ends_at_once() -> None:
    with graceful_shutdown():
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        send(signal.SIGINT)
        assert stop_requested()
        child = os.fork()
        if not child:
            send(signal.SIGINT)
            os._exit(0)  # not reached
        _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGINT
    assert not stop_requested()


def test_a_command_started_by_nohup_outlives_its_terminal() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with graceful_shutdown():
        send(signal.SIGHUP)
        assert not stop_requested()
        send(signal.SIGTERM)
        assert stop_requested()
    assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN


class Workers(Dataset[int]):
    """Returns the worker's process id."""

    def __len__(self) -> int:
        return 8

    def __getitem__(self, index: int) -> int:
        return os.getpid()


@pytest.mark.filterwarnings("ignore:.*multi-threaded:DeprecationWarning")  # of fork
@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="no sigwaitinfo here")
def test_a_worker_ignores_sigterm_from_others() -> None:
    loader = DataLoader(Workers(), num_workers=1, worker_init_fn=ignore_signals_of_others)
    batches = iter(loader)
    worker = int(next(batches))
    kill = "import os, signal, sys; os.kill(int(sys.argv[1]), signal.SIGTERM)"
    subprocess.run([sys.executable, "-c", kill, str(worker)], check=True)
    assert [int(batch) for batch in batches] == [worker] * 7


CRASH = """
from torch.utils.data import DataLoader
from pipeline.system.stop import ignore_signals_of_others
batches = iter(DataLoader(range(100), num_workers=1, worker_init_fn=ignore_signals_of_others))
next(batches)
raise KeyError("crash")
"""


@pytest.mark.skipif(not hasattr(signal, "sigwaitinfo"), reason="no sigwaitinfo here")
def test_a_program_that_crashes_ends_with_its_workers() -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CRASH], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert ended.returncode == 1
    assert "KeyError: 'crash'" in ended.stderr
