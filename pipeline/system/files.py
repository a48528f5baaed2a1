"""Atomic writing of files and folders, locks, digests and free disk space."""

import csv
import errno
import hashlib
import json
import math
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

LIST = ".carb-output"  # list of what carb wrote into a folder, see `pipeline.system.outputs`
NOTHING = "nothing.txt"  # the only file of an output without content: DVC warns of empty folders
_FULL = {errno.ENOSPC, errno.EDQUOT}
# Errors of file systems without locks, such as Lustre without the option flock.
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.EINVAL}
# Errors of file systems that do not flush folders, such as FUSE, CIFS and 9p.
_NO_SYNC = {
    *(errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF),
    *(errno.EPERM, errno.EACCES, errno.EISDIR, errno.ENOTTY),
}
# Errors of a folder that cannot be renamed: a mount point, a lower layer of Docker's.
_NO_RENAME = {errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES}
_MAX_NAME = 140  # bytes, as encrypted home folders allow
# Files and folders that operating systems create, in lower case.
_JUNK = {
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
    *("@eadir", "lost+found", "$recycle.bin", "system volume information"),
}


class DiskFullError(ValueError):
    """There is not enough disk space for ``path``."""

    def __init__(self, path: Path, problem: str) -> None:
        super().__init__(f"{path}: not enough disk space, {problem}; free some space and run again")
        self.path = path


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a draft path to write a file or folder to; on success it replaces ``path``.

    Readers see the old content or the new, never a partial file; hidden files in a folder stay.

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
    """SHA-256 of a JSON-able value; the order of keys does not matter."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


@contextmanager
def locked(path: Path, *, wait_s: float = 0.0) -> Iterator[None]:
    """Keep other runs from writing ``path`` during the block; wait for them at most ``wait_s``.

    The lock is a hidden file next to ``path``, or in a folder that cannot be renamed. It ends with
    the process, even a killed one. Locks of one path may be nested in a process.

    Raises:
        ValueError: another process holds it.
    """
    from filelock import FileLock, Timeout  # takes 0.1 s

    file = hidden_path(path, "lock").absolute()
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file, is_singleton=True)
    try:
        lock.acquire(timeout=wait_s)
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
        if lock.lock_counter <= 1:  # the outermost one, so nobody else holds the file
            file.unlink(missing_ok=True)
        lock.release()


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden, or created by an operating system."""
    return name.startswith(".") or name.lower() in _JUNK


def remove(path: Path) -> None:
    """Delete a file, link or folder, if it exists."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def copy_into(source: Path, target: Path) -> None:
    """Copy a file or folder without modes and times, which some file systems refuse."""
    if not source.is_dir():
        shutil.copyfile(source, target)
        return
    target.mkdir(exist_ok=True)
    for entry in source.iterdir():
        copy_into(entry, target / entry.name)


def sync(path: Path) -> None:
    """Flush a file, or a folder with its content, to the disk.

    Files get the mode of the user's umask, because safetensors makes them private. File systems
    without modes, or without flushing of folders, are accepted.
    """
    umask = os.umask(0)
    os.umask(umask)
    for entry in [path, *path.rglob("*")]:
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
    """A hidden path on the disk of ``path``: next to it, or in it if it cannot be renamed."""
    if _cannot_be_renamed(path):
        return path / f".carb.{kind}"
    path = path if path.name not in ("", "..") else path.resolve()
    name = f".{path.name}.{kind}"
    if len(os.fsencode(name)) > _MAX_NAME:
        name = f".{hashlib.sha256(os.fsencode(path.name)).hexdigest()[:32]}.{kind}"
    return path.with_name(name)


def _cannot_be_renamed(path: Path) -> bool:
    """Whether a folder is mounted, contains the current folder, or is in a read-only folder."""
    if path.is_symlink() or not path.is_dir():
        return False
    here = Path.cwd().is_relative_to(path.resolve())
    return here or not os.access(path.absolute().parent, os.W_OK) or path.is_mount()


def put_in_place(made: Path, path: Path) -> None:
    """Replace ``path`` by a finished file or folder on the same disk; hidden files in it stay.

    At each moment ``made`` or ``path`` is complete, except for a folder that cannot be renamed: its
    content is replaced. A link (into DVC's cache) is replaced, never written through.
    """
    sync(made)
    if not made.is_dir():
        _replace_file(made, path)
        return
    if _cannot_be_renamed(path):
        _replace_content(made, path)
        return
    old = hidden_path(path, "old")
    if os.path.lexists(path):  # rename() replaces files, not folders
        remove(old)
        try:
            path.rename(old)
        except OSError as error:
            if error.errno not in _NO_RENAME or not path.is_dir():
                raise
            _replace_content(made, path)
            return
    try:
        made.rename(path)
    except OSError:
        if os.path.lexists(old):
            old.rename(path)
        raise
    if old.is_dir() and not old.is_symlink():
        _clear(old)
        _move_content(old, path, replace=False)
    remove(old)


def _replace_file(made: Path, path: Path) -> None:
    """Replace a file; only its content if the file itself is a mount point."""
    try:
        made.replace(path)
    except OSError as error:
        if error.errno not in (errno.EBUSY, errno.EXDEV):
            raise
        shutil.copyfile(made, path)
        remove(made)


def _replace_content(made: Path, path: Path) -> None:
    """Replace the content of a folder, except for hidden files."""
    _clear(path)
    _move_content(made, path, replace=True)


def _clear(folder: Path) -> None:
    """Delete what is not hidden in a folder."""
    for entry in folder.iterdir():
        if entry.is_dir() and not entry.is_symlink() and not is_hidden(entry.name):
            _clear(entry)
            with suppress(OSError):  # contains something hidden
                entry.rmdir()
        elif not is_hidden(entry.name):
            entry.unlink()


def _move_content(source: Path, target: Path, *, replace: bool) -> None:
    """Move the content of a folder into another one; without ``replace`` only what it lacks."""
    for entry in source.iterdir():
        place = target / entry.name
        if entry.is_dir() and place.is_dir() and not place.is_symlink():
            _move_content(entry, place, replace=replace)
        elif replace or (entry.name != LIST and not os.path.lexists(place)):
            _move(entry, place)


def _move(entry: Path, place: Path) -> None:
    """Move a file or folder, possibly to another disk."""
    try:
        entry.rename(place)
    except OSError as error:
        if error.errno not in _NO_RENAME:
            raise
        copy_into(entry, place)
        remove(entry)


def check_room(needs: Mapping[Path, int]) -> None:
    """Refuse work whose outputs do not fit on the disks, before it begins.

    Args:
        needs: bytes that will be written below each path.

    Raises:
        DiskFullError: names the path that needs most, of those on the full disk.
    """
    disks: dict[int, list[Path]] = defaultdict(list)
    for path in needs:
        disks[_folder_of(path).stat().st_dev].append(path)
    for paths in disks.values():
        need = sum(needs[path] for path in paths)
        disk = shutil.disk_usage(_folder_of(paths[0]))
        if need > disk.free and disk.total > 0:  # some file systems report 0
            raise DiskFullError(
                max(paths, key=lambda path: needs[path]),
                f"up to {bytes_text(need)} needed, {bytes_text(disk.free)} free",
            )


@contextmanager
def explain_full_disk(path: Path, draft: Path, *, needs: int = 0) -> Iterator[None]:
    """Turn the error of a full disk into one sentence that names ``path``.

    Args:
        path: the output, as users know it.
        draft: where it is written to; an error about a part of it names ``path`` too.
        needs: its bytes, if they are known.

    Raises:
        DiskFullError: names ``path``, and how much is needed.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, DiskFullError):
            if not error.path.is_relative_to(draft):
                raise  # about another output
        elif getattr(error, "errno", None) not in _FULL and "No space left" not in str(error):
            raise  # the error of safetensors has no errno
        known = max(needs, bytes_below(draft), bytes_below(path))
        raise DiskFullError(
            path, f"at least {bytes_text(known)} needed, finished work is kept"
        ) from None


def bytes_text(size: int) -> str:
    """A size in words: ``3.1 GB``."""
    for factor, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def _folder_of(path: Path) -> Path:
    """The existing folder that will contain ``path``."""
    return next(parent for parent in path.absolute().parents if parent.is_dir())


def same_disk(one: Path, other: Path) -> bool:
    """Whether two paths, which need not exist yet, lie on one file system."""
    return _folder_of(one).stat().st_dev == _folder_of(other).stat().st_dev


def bytes_below(path: Path) -> int:
    """Size of a file, or of all files in a folder; 0 if there is nothing."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if os.path.lexists(file))
