"""Command line of every stage: log lines, clear errors, broken streams, missing memory."""

import functools
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

from pipeline.system.devices import (
    LOST,
    another_stopped,
    exit_process,
    is_distributed,
)
from pipeline.system.errors import sentence_of
from pipeline.system.progress import AboveTheBar
from pipeline.system.stop import Interrupted, graceful_shutdown, stop_requested

if TYPE_CHECKING:  # torch and Fabric take seconds to import; `--help` must not
    pass
import errno
from contextlib import suppress
from typing import Any, TextIO, cast

log = logging.getLogger("carb")


P = ParamSpec("P")


T = TypeVar("T")


# What torch says of a GPU, of a CPU, and of a loader's process that the system has ended.
_NO_MEMORY = [
    "out of memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "ALLOC_FAILED",
    "is killed by signal: Killed",
    "is killed by signal: Bus error",
]


@contextmanager
def memory_hint(advice: str) -> Iterator[None]:
    """Say which parameter to lower where a GPU or a process has not enough memory.

    Args:
        advice: what to do, in words.

    Raises:
        ValueError: there was not enough memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:  # torch's own type is a RuntimeError
        said = str(error)
        if not isinstance(error, MemoryError) and not any(sign in said for sign in _NO_MEMORY):
            raise
        first = said.splitlines()[0][:120] if said else type(error).__name__
        raise ValueError(f"out of memory ({first}); {advice}") from None


def command(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function a good command line: log lines, and a sentence in place of a traceback.

    The ``ValueError`` that this project raises, and what the system says of files, are what users
    and their disks cause: they print as ``error: <sentence>`` and end the process with exit code 2.
    A request to stop ends it between two pieces of work (`pipeline.system.stop`). Anything else is
    our own fault and keeps its traceback, also the ``ValueError`` of a library.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[AboveTheBar()])
        log.setLevel(logging.INFO)
        with lasting_streams(), graceful_shutdown():
            try:
                made = function(*args, **kwargs)
                sys.stdout.flush()
                return made
            except Interrupted as error:
                _stop(error)
            except (ValueError, OSError) as error:
                said = sentence_of(error, function.__code__)
                if said is None:
                    raise
                print(f"error: {said}", file=sys.stderr)
                exit_process(2)
            except RuntimeError as error:
                if not (is_distributed() and another_stopped(error)):
                    raise
                if stop_requested():  # and so were the others
                    _stop(Interrupted("with all its processes"))
                print(f"error: {LOST}", file=sys.stderr)
                exit_process(2)

    return run


def _stop(error: Interrupted) -> NoReturn:
    """End a process that was asked to; the first one of a run tells it, for all."""
    if log.level > logging.INFO:
        exit_process(0)  # with another code a launcher would kill the first one at its last words
    print(error, file=sys.stderr)
    exit_process(error.code)


_GONE = (errno.EPIPE, errno.EIO, errno.EBADF)  # nobody reads; the terminal is closed


class _Lasting:
    """A stream that is silent once nobody reads it.

    Args:
        stream: what is written to.
        always: whatever the error is; otherwise a full disk is one.
    """

    def __init__(self, stream: TextIO, *, always: bool) -> None:
        self._stream, self._always = stream, always

    def write(self, text: str) -> int:
        """Write a text, or nothing."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._lose(error)
            return len(text)

    def flush(self) -> None:
        """Write what is left, or nothing."""
        try:
            self._stream.flush()
        except OSError as error:
            self._lose(error)

    def _lose(self, error: OSError) -> None:
        if not self._always and error.errno not in _GONE:
            raise error
        with suppress(OSError), open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), self._stream.fileno())  # what is left goes there

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _open_closed() -> None:
    """Give the closed ones of the first three file numbers to ``/dev/null``."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115


@contextmanager
def lasting_streams() -> Iterator[None]:
    """Keep a command going when its output or its messages can no longer be written."""
    _open_closed()
    before = sys.stdout, sys.stderr
    lasting = [_Lasting(stream, always=stream is before[1]) for stream in before]
    sys.stdout, sys.stderr = cast("list[TextIO]", lasting)
    try:
        yield
    finally:
        for stream in lasting:
            with suppress(OSError):  # of a full disk: the command has said so
                stream.flush()
        sys.stdout, sys.stderr = before
