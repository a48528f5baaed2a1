"""Command line of every stage: log lines, one-sentence errors, broken streams, missing memory."""

import errno
import functools
import logging
import os
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn, ParamSpec, TextIO, TypeVar, cast

from pipeline.system.devices import LOST, exit_process, is_distributed
from pipeline.system.progress import StderrHandler
from pipeline.system.stop import Interrupted, graceful_shutdown, stop_requested
from pipeline.system.text import error_text, sentence_of

log = logging.getLogger("carb")
P = ParamSpec("P")
T = TypeVar("T")
# Messages of torch for a GPU, a CPU, and a loader's process that the system has ended.
_NO_MEMORY = [
    "out of memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "ALLOC_FAILED",
    "is killed by signal: Killed",
    "is killed by signal: Bus error",
]
# Where torch raises the error of a collective operation, which is a plain RuntimeError.
_COLLECTIVE = ("torch/distributed/", "torch/nn/parallel/distributed.py", "torch/autograd/graph.py")
_CLOSED = (errno.EPIPE, errno.EIO, errno.EBADF)  # nobody reads; the terminal is closed


def command(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function a command line: log lines, and a sentence in place of a traceback.

    The ``ValueError`` that this project raises, and the system's errors about files, are caused by
    users and their disks: they print as ``error: <sentence>`` and end the process with exit code 2.
    A request to stop ends it between two pieces of work (`pipeline.system.stop`). Anything else is
    our own fault and keeps its traceback, also the ``ValueError`` of a library.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[StderrHandler()])
        log.setLevel(logging.INFO)
        with _lasting_streams(), graceful_shutdown():
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
                _fail(said)
            except RuntimeError as error:
                if not (is_distributed() and _is_collective(error)):
                    raise
                if stop_requested():  # and so were the others
                    _stop(Interrupted("with all its processes"))
                _fail(f"{LOST} ({error_text(error)})")

    return run


def _fail(sentence: str) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr)
    exit_process(2)


def _stop(error: Interrupted) -> NoReturn:
    """End a process on request; the first one of a run prints the message for all."""
    if log.level > logging.INFO:
        exit_process(0)  # with another code a launcher would kill the first one too early
    print(error, file=sys.stderr)
    exit_process(error.code)


def _is_collective(error: RuntimeError) -> bool:
    """Whether an error comes from an operation of several processes: another one is gone."""
    last = traceback.extract_tb(error.__traceback__)[-1].filename.replace(os.sep, "/")
    return any(part in last for part in _COLLECTIVE)


@contextmanager
def memory_hint(advice: str) -> Iterator[None]:
    """Add to an error about missing memory which parameter to lower.

    Raises:
        ValueError: a GPU or a process had not enough memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:  # torch's own type is a RuntimeError
        said = str(error)
        if not isinstance(error, MemoryError) and not any(sign in said for sign in _NO_MEMORY):
            raise
        first = said.splitlines()[0][:120] if said else type(error).__name__
        raise ValueError(f"out of memory ({first}); {advice}") from None


class _LastingStream:
    """A text stream that drops its output once nobody reads it.

    Args:
        stream: what is written to.
        always: after any error; otherwise a full disk is one that is raised.
    """

    def __init__(self, stream: TextIO, *, always: bool) -> None:
        self._stream, self._always = stream, always

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        try:
            return self._stream.write(text)
        except OSError as error:
            self._redirect(error)
            return len(text)

    def flush(self) -> None:
        """Write the buffer, or drop it."""
        try:
            self._stream.flush()
        except OSError as error:
            self._redirect(error)

    def _redirect(self, error: OSError) -> None:
        if not self._always and error.errno not in _CLOSED:
            raise error
        with suppress(OSError), open(os.devnull, "w") as nothing:
            os.dup2(nothing.fileno(), self._stream.fileno())  # for what is still in the buffer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _lasting_streams() -> Iterator[None]:
    """Continue when stdout or stderr is closed or breaks: a lost terminal does not lose the work.

    Closed ones (``2>&-``) become ``/dev/null``; otherwise the next file that is opened would take
    their number, and libraries in C would write their messages into it.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115
    before = sys.stdout, sys.stderr
    lasting = [_LastingStream(stream, always=stream is before[1]) for stream in before]
    sys.stdout, sys.stderr = cast("list[TextIO]", lasting)
    try:
        yield
    finally:
        for stream in lasting:
            with suppress(OSError):  # of a full disk: the command has reported it
                stream.flush()
        sys.stdout, sys.stderr = before
