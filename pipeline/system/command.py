"""Command line of every stage: log lines, one-sentence errors, closed streams, out of memory."""

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
# Messages of torch for a GPU, a CPU, and a data loader's worker that the system has killed.
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
_CLOSED = (errno.EPIPE, errno.EIO, errno.EBADF)  # a closed pipe, terminal or stream


def command(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function a command line: log lines, and one sentence instead of a traceback.

    The ``ValueError`` that this project raises, and the system's errors about files, are caused by
    users and their disks: they print as ``error: <sentence>`` and end the process with exit code 2.
    A stop signal ends it after the current item (`pipeline.system.stop`). Anything else is a bug
    and keeps its traceback, including the ``ValueError`` of a library.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[StderrHandler()])
        log.setLevel(logging.INFO)
        with _safe_streams(), graceful_shutdown():
            try:
                result = function(*args, **kwargs)
                sys.stdout.flush()
                return result
            except Interrupted as error:
                _stop(error)
            except (ValueError, OSError) as error:
                sentence = sentence_of(error, function.__code__)
                if sentence is None:
                    raise
                _fail(sentence)
            except RuntimeError as error:
                if not (is_distributed() and _is_collective(error)):
                    raise
                if stop_requested():  # of the other processes, too
                    _stop(Interrupted("with all its processes"))
                _fail(f"{LOST} ({error_text(error)})")

    return run


def _fail(sentence: str) -> NoReturn:
    print(f"error: {sentence}", file=sys.stderr)
    exit_process(2)


def _stop(error: Interrupted) -> NoReturn:
    """End a process on request; rank zero prints the message for all."""
    if log.level > logging.INFO:
        exit_process(0)  # with another code a launcher would kill rank zero too early
    print(error, file=sys.stderr)
    exit_process(error.code)


def _is_collective(error: RuntimeError) -> bool:
    """Whether an error comes from a collective operation: another process is gone."""
    last = traceback.extract_tb(error.__traceback__)[-1].filename.replace(os.sep, "/")
    return any(part in last for part in _COLLECTIVE)


@contextmanager
def memory_hint(advice: str) -> Iterator[None]:
    """Add to an out-of-memory error which parameter to lower.

    Raises:
        ValueError: a GPU or a process had not enough memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:  # torch's own type is a RuntimeError
        text = str(error)
        if not isinstance(error, MemoryError) and not any(sign in text for sign in _NO_MEMORY):
            raise
        first = text.splitlines()[0][:120] if text else type(error).__name__
        raise ValueError(f"out of memory ({first}); {advice}") from None


class _SafeStream:
    """A text stream that drops its output when nobody reads it.

    Args:
        stream: the stream to write to.
        always: drop output after any error; otherwise errors such as a full disk are raised.
    """

    def __init__(self, stream: TextIO, *, always: bool) -> None:
        self._stream, self._always = stream, always

    def write(self, text: str) -> int:
        """Write a text, or drop it."""
        with self._dropping():
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write the buffer, or drop it."""
        with self._dropping():
            self._stream.flush()

    @contextmanager
    def _dropping(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if not self._always and error.errno not in _CLOSED:
                raise
            with suppress(OSError), open(os.devnull, "w") as null:
                os.dup2(null.fileno(), self._stream.fileno())  # for the rest of the buffer

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def _safe_streams() -> Iterator[None]:
    """Continue when stdout or stderr is closed: a lost terminal must not lose the work.

    Closed ones (``2>&-``) become ``/dev/null``; otherwise the next file that is opened would take
    their number, and C libraries would write their messages into it.
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
    safe = [_SafeStream(stream, always=stream is before[1]) for stream in before]
    sys.stdout, sys.stderr = cast("list[TextIO]", safe)
    try:
        yield
    finally:
        for stream in safe:
            with suppress(OSError):  # of a full disk, already reported
                stream.flush()
        sys.stdout, sys.stderr = before
