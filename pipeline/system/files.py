"""Files and folders that are whole or not there, and the digests that name their content."""

import errno
import fcntl
import hashlib
import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.system.disk import telling_of_full_disk
from pipeline.system.replacing import hidden_path
from pipeline.system.replacing import put_in_place as put_in_place
from pipeline.system.replacing import remove as remove

# What file systems say that know no locks, such as Lustre without the option flock.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other runs from writing ``path`` meanwhile.

    The lock is a hidden file beside it, or in a folder that stays where it is. It belongs to the
    process and not to its children, and ends with it, however it ends.

    Raises:
        ValueError: another process holds it.
    """
    lock = hidden_path(path, "lock")
    lock.parent.mkdir(parents=True, exist_ok=True)
    handle = _hold(lock, path)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
        os.close(handle)


def _hold(lock: Path, path: Path) -> int:
    """An open handle of a lock file that this process holds."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(lock.stat(), os.fstat(handle)):
                return handle
        except FileNotFoundError:  # its last holder deleted it after we had opened it
            pass
        except (BlockingIOError, PermissionError):  # POSIX leaves the choice
            os.close(handle)
            raise ValueError(
                f"{path}: another run is writing it; wait for it to end, or stop it"
            ) from None
        except OSError as error:
            if error.errno in _NO_LOCKS:
                return handle
            os.close(handle)
            raise
        os.close(handle)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; it takes the place of ``path`` only if all went
    well.

    Readers see the old content or the new, never a half; see `put_in_place` for what stays. Works
    for a file and for a directory.

    Raises:
        ValueError: another run writes there, or the disk is full.
    """
    with locked(path):
        draft = hidden_path(path, "draft")
        remove(draft)
        try:
            with telling_of_full_disk(path, draft):
                yield draft
                put_in_place(draft, path)
        finally:
            remove(draft)


def _finite(value: Any) -> Any:
    """Replace NaN (a class that never occurs) by None: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all; NaN becomes null."""
    with atomic_path(path) as draft:
        draft.write_text(json.dumps(_finite(content), indent=2, allow_nan=False) + "\n", "utf-8")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fingerprint(content: Any) -> str:
    """SHA-256 of a JSON-able value, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
