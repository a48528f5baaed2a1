"""Atomic writing of files and folders, locks and digests."""

import csv
import errno
import hashlib
import json
import math
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from pipeline.system.disk import explain_full_disk

LIST = ".carb-output"  # list of what carb wrote into a folder, see `pipeline.system.outputs`
# Errors of file systems that have no locks, such as Lustre without the option flock.
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}
# Of those that do not flush folders, such as FUSE, CIFS and 9p.
_NO_SYNC = {
    *(errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF),
    *(errno.EPERM, errno.EACCES, errno.EISDIR, errno.ENOTTY),
}
# Of a folder that cannot be renamed: a mount point, a lower layer of Docker's.
_NO_RENAME = {errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES}
_LONGEST = 140  # bytes of a name, as encrypted home folders allow
# What systems put into folders: visible, but nobody's work. In small letters.
_JUNK = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    *("@eadir", "lost+found", "$recycle.bin", "system volume information"),
}


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a draft path to write a file or folder to; it replaces ``path`` if the block succeeds.

    Readers see the old content or the new, never a half; see `put_in_place` for what stays.

    Raises:
        ValueError: another run writes there, or the disk is full.
    """
    with locked(path):
        draft = hidden_path(path, "draft")
        remove(draft)
        try:
            with explain_full_disk(path, draft):
                yield draft
                put_in_place(draft, path)
        finally:
            remove(draft)


def write_json(path: Path, content: Any) -> None:
    """Write JSON atomically; NaN (a class that never occurs) becomes null."""
    with atomic_path(path) as draft:
        draft.write_text(json.dumps(_finite(content), indent=2, allow_nan=False) + "\n", "utf-8")


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as CSV, atomically; the keys of the first row are the header."""
    with atomic_path(path) as draft, draft.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fingerprint(content: Any) -> str:
    """SHA-256 of a JSON-able value, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Keep other runs from writing ``path`` meanwhile.

    The lock is a hidden file beside it, or in a folder that cannot be renamed. It ends with the
    process, however that ends. Locks of one path may be nested in a process.

    Raises:
        ValueError: another process holds it.
    """
    from filelock import FileLock, Timeout  # takes 0.1 s

    file = hidden_path(path, "lock").absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(
            f"{path}: another run is writing it; wait for it to end, or stop it"
        ) from None
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    try:
        yield
    finally:
        if lock.lock_counter <= 1:  # of nested ones the outer: nobody else can hold the file
            file.unlink(missing_ok=True)
        lock.release()


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or one that systems make by themselves."""
    return name.startswith(".") or name.lower() in _JUNK


def remove(path: Path) -> None:
    """Delete a file, link or folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def copy_into(source: Path, target: Path) -> None:
    """Copy a file or a folder without modes and times, which some file systems refuse."""
    if not source.is_dir():
        shutil.copyfile(source, target)
        return
    target.mkdir(exist_ok=True)
    for entry in source.iterdir():
        copy_into(entry, target / entry.name)


def sync(path: Path) -> None:
    """Flush a file or a folder (with all below it) to the disk.

    Files get the mode of the user's umask: safetensors makes them readable by the owner alone.
    File systems without modes or without flushing of folders are accepted.
    """
    umask = os.umask(0)
    os.umask(umask)
    for entry in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if entry.is_file() and not entry.is_symlink():
            with suppress(OSError):
                entry.chmod(0o666 & ~umask)
        try:
            handle = os.open(entry, os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)
        except OSError as error:
            if error.errno not in _NO_SYNC:
                raise


def hidden_path(path: Path, kind: str) -> Path:
    """A hidden path on the file system of ``path``: beside it, or in it if it cannot be renamed."""
    if _stays(path):
        return path / f".carb.{kind}"
    path = path if path.name not in ("", "..") else path.resolve()
    name = f".{path.name}.{kind}"
    if len(os.fsencode(name)) > _LONGEST:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}.{kind}"
    return path.with_name(name)


def _stays(path: Path) -> bool:
    """Whether a folder cannot or must not be renamed, so that it is filled instead.

    It is mounted, it is the current folder or contains it, or nothing can be written beside it.
    """
    if path.is_symlink() or not path.is_dir():
        return False
    here = Path.cwd().is_relative_to(path.resolve())
    return here or not os.access(path.absolute().parent, os.W_OK) or path.is_mount()


def put_in_place(made: Path, path: Path) -> None:
    """Let a finished file or folder take the place of ``path``, on the same file system.

    At each moment ``made`` or ``path`` is complete, except for a folder that cannot be renamed: it
    is filled. A ``path`` that is a link into DVC's cache is replaced, never written through. Hidden
    files in a folder stay.
    """
    sync(made)
    if not made.is_dir():
        _replace_file(made, path)
        return
    if _stays(path):
        _fill(made, path)
        return
    old = hidden_path(path, "old")
    if os.path.lexists(path):  # rename() replaces files, not directories
        remove(old)
        try:
            path.rename(old)
        except OSError as error:
            if error.errno not in _NO_RENAME or not path.is_dir():
                raise
            _fill(made, path)
            return
        try:
            made.rename(path)
        except OSError:
            old.rename(path)
            raise
        if old.is_dir() and not old.is_symlink():
            _clear(old)
            _merge(old, path)
    else:
        made.rename(path)
    remove(old)


def _replace_file(made: Path, path: Path) -> None:
    """Put a file in place, by its content where the file itself is a mount point."""
    try:
        made.replace(path)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV):
            raise
        shutil.copyfile(made, path)
        remove(made)


def _fill(made: Path, path: Path) -> None:
    """Replace the content of a folder, except for hidden files."""
    _clear(path)
    for entry in made.iterdir():
        _move(entry, path / entry.name)


def _clear(folder: Path) -> None:
    """Delete what is not hidden in a folder."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink() and not is_hidden(entry.name):
            _clear(entry)
            with suppress(OSError):  # something hidden is left
                entry.rmdir()
        elif not is_hidden(entry.name):
            entry.unlink()


def _merge(source: Path, target: Path) -> None:
    """Move what is left in a replaced folder to the new one, unless that has it."""
    for entry in source.iterdir():
        if entry.name == LIST:
            continue
        if not os.path.lexists(target / entry.name):
            entry.rename(target / entry.name)
        elif entry.is_dir() and (target / entry.name).is_dir():
            _merge(entry, target / entry.name)


def _move(entry: Path, place: Path) -> None:
    """Move a file or a folder into a folder, maybe of another file system."""
    if place.is_dir() and not place.is_symlink():  # something hidden was left in it
        for inner in entry.iterdir():
            _move(inner, place / inner.name)
        return
    try:
        entry.rename(place)
    except OSError as error:
        if error.errno not in _NO_RENAME:
            raise
        copy_into(entry, place)
        remove(entry)
