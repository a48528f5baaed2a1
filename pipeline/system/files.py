"""Atomic writing of files and folders, locks, digests and free disk space."""

import csv
import errno
import fcntl
import hashlib
import json
import math
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

FULL = {errno.ENOSPC, errno.EDQUOT}


_UNITS = ((10**9, "GB"), (10**6, "MB"), (10**3, "kB"))


class DiskFullError(ValueError):
    """A disk is full.

    Args:
        path: what could not be written.
        message: names it, and how much is needed.
    """

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


def _worded(size: int) -> str:
    """A number of bytes as people write it."""
    for factor, unit in _UNITS:
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def _folder_of(path: Path) -> Path:
    """The folder that is there and will hold ``path``."""
    return next(parent for parent in path.absolute().parents if parent.is_dir())


def bytes_below(path: Path) -> int:
    """Size of a file, or of all files in a folder; 0 if there is nothing."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if os.path.lexists(file))


def same_disk(one: Path, other: Path) -> bool:
    """Whether two paths, which need not be there yet, lie on one file system."""
    return _folder_of(one).stat().st_dev == _folder_of(other).stat().st_dev


def check_room(needs: Mapping[Path, int]) -> None:
    """Refuse work whose outputs do not fit on the disks, before it begins.

    Args:
        needs: bytes that will be written below each path; paths of one disk share its free space.

    Raises:
        DiskFullError: names the largest path on a disk without room, what all of them need there
            and what is free.
    """
    disks: dict[int, list[Path]] = defaultdict(list)
    for path in needs:
        disks[_folder_of(path).stat().st_dev].append(path)
    for paths in disks.values():
        need = sum(needs[path] for path in paths)
        disk = shutil.disk_usage(_folder_of(paths[0]))
        if need > disk.free and disk.total > 0:  # some file systems tell nothing
            raise DiskFullError(
                max(paths, key=lambda path: needs[path]),
                f"up to {_worded(need)} will be written and {_worded(disk.free)} are free on that "
                "disk; make room and run again",
            )


@contextmanager
def explain_full_disk(path: Path, draft: Path, *, needs: int = 0) -> Iterator[None]:
    """Say what could not be written where a disk runs full; of parts of it the whole is named.

    Args:
        path: what is written, as its user knows it.
        draft: where it is written to.
        needs: its bytes, where they are known; else what is there tells.

    Raises:
        DiskFullError: names ``path``, and how much is needed.
    """
    try:
        yield
    except (OSError, DiskFullError) as error:
        if isinstance(error, OSError) and error.errno not in FULL:
            raise
        if isinstance(error, DiskFullError) and not error.path.is_relative_to(draft):
            raise  # of something else that is written meanwhile
        known = max(needs, bytes_below(draft), bytes_below(path))
        raise DiskFullError(
            path,
            f"cannot be written, the disk is full; it needs {_worded(known)} or more; make room "
            "and run again, finished work is kept",
        ) from None


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
            with explain_full_disk(path, draft):
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


# What file systems say that do not flush folders, such as FUSE, CIFS and 9p.
_NO_SYNC = {
    *(errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF),
    *(errno.EPERM, errno.EACCES, errno.EISDIR, errno.ENOTTY),
}


# What they say of a folder that cannot be renamed: a mount point, a lower layer of Docker's.
_NO_RENAME = {errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES}


LONGEST = 140  # bytes of a name, as encrypted home folders allow


LIST = ".carb-output"  # what carb wrote into a folder, see `pipeline.system.outputs`


# What systems put into folders: visible, but nobody's work. In small letters.
_JUNK = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    *("@eadir", "lost+found", "$recycle.bin", "system volume information"),
}


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or one that systems make by themselves."""
    return name.startswith(".") or name.lower() in _JUNK


def sync(path: Path) -> None:
    """Flush a file or a directory (with all below it) to the disk.

    Files get the mode that the user's umask gives: safetensors makes them the owner's alone. Some
    file systems know no modes, some do not flush folders: both are niceties.
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


def copy_into(source: Path, target: Path) -> None:
    """Copy a file or a folder, content alone: modes and times are refused by some file systems."""
    if not source.is_dir():
        shutil.copyfile(source, target)
        return
    target.mkdir(exist_ok=True)
    for entry in source.iterdir():
        copy_into(entry, target / entry.name)


def remove(path: Path) -> None:
    """Delete a file, link or directory, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_mount(path: Path) -> bool:
    """Whether another file system, or another folder (Docker's -v), is mounted at a folder."""
    if path.is_mount():
        return True
    try:
        table = Path("/proc/self/mountinfo").read_text("utf-8", "surrogateescape")
    except OSError:
        return False
    places = (line.split(" ")[4] for line in table.splitlines())
    real = os.path.realpath(path)
    return any(
        real == re.sub(r"\\([0-7]{3})", lambda code: chr(int(code[1], 8)), place)
        for place in places
    )


def _stays(path: Path) -> bool:
    """Whether a folder cannot or must not be renamed: it is filled instead.

    It is mounted, it is the current folder or holds it, or nothing can be written beside it.
    """
    if path.is_symlink() or not path.is_dir():
        return False
    here = Path.cwd().is_relative_to(path.resolve())
    return here or not os.access(path.absolute().parent, os.W_OK) or _is_mount(path)


def hidden_path(path: Path, kind: str) -> Path:
    """Name of a hidden file or folder on the file system of ``path``: beside it, or in it where it
    stays."""
    if _stays(path):
        return path / f".carb.{kind}"
    path = path if path.name not in ("", "..") else path.resolve()
    name = f".{path.name}.{kind}"
    if len(os.fsencode(name)) > LONGEST:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}.{kind}"
    return path.with_name(name)


def put_in_place(made: Path, path: Path) -> None:
    """Let a finished file or folder take the place of ``path``, on the same file system.

    At each moment ``made`` or ``path`` is whole, but for a folder that cannot be renamed: that is
    filled. An existing ``path`` may be a link into DVC's cache: it is replaced, never written
    through. Hidden files in a folder stay.
    """
    sync(made)
    if not made.is_dir():
        _replace(made, path)
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


def _replace(made: Path, path: Path) -> None:
    """Put a file in place, by its content where it is mounted by itself."""
    try:
        made.replace(path)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV):
            raise
        shutil.copyfile(made, path)
        remove(made)


def _fill(made: Path, path: Path) -> None:
    """Replace what a folder contains, but for hidden files."""
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


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as CSV, whole or not at all; the keys of the first row are the header."""
    with atomic_path(path) as draft, draft.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
