"""A run that is asked to stop ends between two pieces of work, not in the middle of one.

Preemption sends SIGTERM, Ctrl-C SIGINT, a terminal that closes SIGHUP. The signal is noted; long
loops look for it after each item, so a write in hand is finished.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
SIGNALS = (signal.SIGTERM, signal.SIGINT, *([_HANGUP] if _HANGUP else []))
_noted: list[signal.Signals] = []


class Interrupted(Exception):
    """The run was asked to stop, and has.

    Args:
        done: how far it came, in words.
    """

    def __init__(self, done: str) -> None:
        asked = _noted[0] if _noted else signal.SIGTERM  # maybe another process of the run was
        super().__init__(f"stopped by {asked.name}, {done}; what is finished is kept, run again")
        self.code = 128 + asked  # what shells expect


def _note(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT and signal.SIGINT in _noted:  # somebody insists
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    _noted.append(signal.Signals(number))  # launchers pass on SIGTERM: it may well come twice


def _by_nohup(number: signal.Signals) -> bool:
    """Whether the command was started so that it outlives its terminal."""
    return number == _HANGUP and signal.getsignal(number) == signal.SIG_IGN


@contextmanager
def graceful_shutdown() -> Iterator[None]:
    """Note requests to stop instead of dying from them, for the length of a command."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _note) for number in SIGNALS if not _by_nohup(number)}
    try:
        yield
    finally:
        _noted.clear()
        for number, handler in before.items():
            signal.signal(number, handler)


def stop_requested() -> bool:
    """Whether a request to stop has come to this process."""
    return bool(_noted)


def _is_single_threaded() -> bool:
    """Whether this process has one thread, as after a fork."""
    tasks = Path("/proc/self/task")
    return tasks.is_dir() and len(list(tasks.iterdir())) == 1


def ignore_signals_of_others(worker: int) -> None:
    """For a loader's process: no signal ends it but a SIGTERM of the process that started it.

    Schedulers and terminals send theirs to all processes of a run; the training needs its photos
    for the step in hand, and ends its loaders itself. (torch's own handler ends them, and training
    with them.)
    """
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo") or not _is_single_threaded():
        return  # macOS; or a thread of a library that the signal would reach: torch's handler stays
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
