"""Memory of this process, and its peak; only Linux reports them."""

import ctypes
from contextlib import suppress
from pathlib import Path

IN_USE, PEAK = "VmRSS", "VmHWM"
_PROCESS = Path("/proc/self")


def process_bytes(what: str) -> int | None:
    """Bytes ``IN_USE`` or at their ``PEAK``; None if the system does not report them."""
    try:
        lines = (_PROCESS / "status").read_text("ascii", "replace").splitlines()
    except OSError:
        return None
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(what)), None)


def reset_peak() -> None:
    """Make the memory in use the new peak, where the system can.

    First glibc returns what was freed: reused later, it would not count as growth.
    """
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    with suppress(OSError):
        (_PROCESS / "clear_refs").write_text("5", "ascii")
