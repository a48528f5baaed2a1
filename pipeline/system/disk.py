"""Disks that are full: told before the long work where the need is known, in one sentence where it
is not."""

import errno
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

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
def telling_of_full_disk(path: Path, draft: Path, *, needs: int = 0) -> Iterator[None]:
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
