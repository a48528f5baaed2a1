"""Files and folders that are whole or not there, and the digests that name their content."""

import errno
import fcntl
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.disk import telling_of_full_disk

# What file systems say that know no locks, such as Lustre without the option flock.
_NO_LOCKS = {errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP}


def _sync(path: Path) -> None:
    """Flush a file or a directory (with all below it) to the disk.

    Files get the mode that the user's umask gives: safetensors makes them the owner's alone.
    """
    umask = os.umask(0)
    os.umask(umask)
    for entry in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if entry.is_file() and not entry.is_symlink():
            entry.chmod(0o666 & ~umask)
        handle = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove(path: Path) -> None:
    """Delete a file, link or directory, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other runs from writing ``path`` meanwhile.

    The lock is a hidden file beside it. It belongs to the process and not to its children, and ends
    with it, however it ends.

    Raises:
        ValueError: another process holds it.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    lock = path.with_name(f".{path.name}.lock")
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


def put_in_place(made: Path, path: Path) -> None:
    """Let a finished file or folder take the place of ``path``, on the same file system.

    At each moment ``made`` or ``path`` is whole. An existing ``path`` may be a link into DVC's
    cache: it is replaced, never written through.
    """
    _sync(made)
    old = path.with_name(f".{path.name}.old")
    if made.is_dir() and os.path.lexists(path):  # rename() replaces files, not directories
        remove(old)
        path.rename(old)
        try:
            made.rename(path)
        except OSError:
            old.rename(path)
            raise
    else:
        made.replace(path)
    remove(old)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; it takes the place of ``path`` only if all went
    well.

    Readers see the old content or the new, never a half. Works for a file and for a directory.

    Raises:
        ValueError: another run writes there, or the disk is full.
    """
    draft = path.with_name(f".{path.name}.draft")
    with locked(path):
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
