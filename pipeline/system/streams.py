"""Standard streams that may be closed or break: a lost terminal or pipe does not lose the work.

Closed ones (``2>&-``) become ``/dev/null``; otherwise the next file that is opened would take their
number, and libraries in C would write their messages into it.
"""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

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
