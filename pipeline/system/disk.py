"""Free disk space: checked before long work, and the errors of a full disk as one sentence."""

import errno
import os
import shutil
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

FULL = {errno.ENOSPC, errno.EDQUOT}


class DiskFullError(ValueError):
    """A disk is full; ``path`` could not be written."""

    def __init__(self, path: Path, message: str) -> None:
        super().__init__(f"{path}: {message}")
        self.path = path


def check_room(needs: Mapping[Path, int]) -> None:
    """Refuse work whose outputs do not fit on the disks, before it begins.

    Args:
        needs: bytes that will be written below each path; paths of one disk share its free space.

    Raises:
        DiskFullError: names the largest path on a disk without room.
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
                f"up to {_bytes_text(need)} will be written and {_bytes_text(disk.free)} are free "
                "on that disk; make room and run again",
            )


@contextmanager
def explain_full_disk(path: Path, draft: Path, *, needs: int = 0) -> Iterator[None]:
    """Turn the error of a disk that runs full into one sentence that names ``path``.

    Args:
        path: what is written, as its user knows it.
        draft: where it is written to; an error about a part of it names ``path`` too.
        needs: its bytes, where they are known.

    Raises:
        DiskFullError: names ``path``, and how much is needed.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, DiskFullError):
            if not error.path.is_relative_to(draft):
                raise  # about something else that is written meanwhile
        elif getattr(error, "errno", None) not in FULL and "No space left" not in str(error):
            raise  # safetensors has an error type of its own, without errno
        known = max(needs, bytes_below(draft), bytes_below(path))
        raise DiskFullError(
            path,
            f"cannot be written, the disk is full; it needs {_bytes_text(known)} or more; make "
            "room and run again, finished work is kept",
        ) from None


def _bytes_text(size: int) -> str:
    for factor, unit in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} bytes"


def _folder_of(path: Path) -> Path:
    """The existing folder that will contain ``path``."""
    return next(parent for parent in path.absolute().parents if parent.is_dir())


def bytes_below(path: Path) -> int:
    """Size of a file, or of all files in a folder; 0 if there is nothing."""
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if os.path.lexists(file))


def same_disk(one: Path, other: Path) -> bool:
    """Whether two paths, which need not exist yet, lie on one file system."""
    return _folder_of(one).stat().st_dev == _folder_of(other).stat().st_dev
