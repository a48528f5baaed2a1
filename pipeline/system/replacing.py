"""Replacing a file or a folder whole: by rename, or by filling a folder that cannot be renamed."""

import errno
import hashlib
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

# What file systems say that do not flush folders, such as FUSE, CIFS and 9p.
_NO_SYNC = {
    *(errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF),
    *(errno.EPERM, errno.EACCES, errno.EISDIR, errno.ENOTTY),
}
# What they say of a folder that cannot be renamed: a mount point, a lower layer of Docker's.
_NO_RENAME = {errno.EBUSY, errno.EXDEV, errno.EPERM, errno.EACCES}
LONGEST = 140  # bytes of a name, as encrypted home folders allow
LIST = ".carb-output"  # what carb wrote into a folder, see `pipeline.system.output_lists`
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
