"""Graceful shutdown: a stop signal ends a run between two pieces of work, not in the middle of one.

Preemption sends SIGTERM, Ctrl-C SIGINT, a closed terminal SIGHUP. The signal is noted; long loops
check for it after each item, so that a write in progress is finished.
"""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_HANGUP = getattr(signal, "SIGHUP", None)  # Windows has none
SIGNALS = (signal.SIGTERM, signal.SIGINT, *([_HANGUP] if _HANGUP else []))
_noted: list[signal.Signals] = []


class Interrupted(Exception):
    """The run was asked to stop, and has; ``done`` says how far it came."""

    def __init__(self, done: str) -> None:
        asked = _noted[0] if _noted else signal.SIGTERM  # maybe another process of the run was
        super().__init__(f"stopped by {asked.name}, {done}; what is finished is kept, run again")
        self.code = 128 + asked  # what shells expect


def _note(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT and signal.SIGINT in _noted:  # a second Ctrl-C ends at once
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    _noted.append(signal.Signals(number))  # launchers pass SIGTERM on: it may come twice


def _by_nohup(number: signal.Signals) -> bool:
    """Whether the command was started so that it outlives its terminal."""
    return number == _HANGUP and signal.getsignal(number) == signal.SIG_IGN


@contextmanager
def graceful_shutdown() -> Iterator[None]:
    """Note stop signals instead of dying from them, for the duration of a command."""
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
    """Whether this process received a stop signal."""
    return bool(_noted)


def ignore_signals_of_others(worker: int) -> None:
    """Make a process of a data loader ignore stop signals, except a SIGTERM of its parent.

    Schedulers and terminals send theirs to all processes of a run, but training needs its photos
    for the step in progress. With SIGTERM ignored altogether a program that crashes would never
    end: Python sends it to the workers and waits for them.
    """
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):
        return  # macOS: torch's own handler stays, which ends the worker
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
