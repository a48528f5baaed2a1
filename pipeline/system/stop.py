"""Graceful shutdown: after a stop signal a run finishes the current item, then exits.

Preemption sends SIGTERM, Ctrl-C SIGINT, a closed terminal SIGHUP. The signal is noted; long loops
check for it after each item, so that no write is interrupted.
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
    """The run stopped on request; ``done`` is its progress."""

    def __init__(self, done: str) -> None:
        asked = _noted[0] if _noted else signal.SIGTERM  # another process received the signal
        super().__init__(f"stopped by {asked.name}, {done}; finished work is kept, run again")
        self.code = 128 + asked  # as shells expect


def _note(number: int, frame: FrameType | None) -> None:
    if number == signal.SIGINT and signal.SIGINT in _noted:  # a second Ctrl-C ends at once
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)
    _noted.append(signal.Signals(number))  # launchers pass SIGTERM on: it may come twice


def _started_by_nohup(number: signal.Signals) -> bool:
    return number == _HANGUP and signal.getsignal(number) == signal.SIG_IGN


@contextmanager
def graceful_shutdown() -> Iterator[None]:
    """Note stop signals instead of dying from them, for the duration of a command."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handled = [number for number in SIGNALS if not _started_by_nohup(number)]
    before = {number: signal.signal(number, _note) for number in handled}
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
    """Make a data loader's worker ignore stop signals, except SIGTERM from its parent.

    Schedulers and terminals signal all processes of a run, but training needs the worker for the
    current step. The parent's SIGTERM ends it: otherwise a program that crashes would never exit,
    because Python waits for its workers.
    """
    for number in SIGNALS:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)
    if not hasattr(signal, "sigwaitinfo"):
        return  # macOS: torch's own handler ends the worker
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})

    def wait() -> None:
        while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
            pass
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
