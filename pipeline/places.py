"""Where files may lie: what data name, and what links lead to, stays in the data set's folder.

Photos and masks are copied into reports, so a data set from elsewhere must not reach other files.
"""

import os
import re
from functools import lru_cache
from pathlib import Path

# What DVC links to where `cache.type` is `symlink`.
_CACHED = re.compile(r"[/\\]files[/\\]md5[/\\][0-9a-f]{2}[/\\][0-9a-f]{30}$")

_NO_TEXT = re.compile("[\udc80-\udcff]")  # Python's signs for bytes that are no UTF-8


def is_plain_name(name: str) -> bool:
    """Whether a text is the name of a file and nothing else: no folder, not hidden, no control
    characters, not too long."""
    plain = name.isprintable() and not re.search(r"[/\\]|^\.|^$", name)
    return plain and len(name.encode("utf-8", "replace")) <= 255


@lru_cache(maxsize=2**16)
def _real(folder: str) -> str:
    """A folder without links; a data set has many photos in few folders."""
    return os.path.realpath(folder)


def check_place(path: Path, root: Path) -> None:
    """Refuse a file that lies outside of ``root``, by its name or by links.

    ``root`` itself may be a link, and a file may be a link of DVC's into its cache.

    Raises:
        ValueError: names the file, and says what to do; also where the name is no UTF-8, in which
            tables of photos are written.
    """
    written = os.path.abspath(path)
    if not written.isascii() and _NO_TEXT.search(written):
        raise ValueError(f"{written!a}: has a name that is not UTF-8; rename it")
    home, folder = _real(os.path.abspath(root)), _real(os.path.dirname(written))
    ends = os.path.realpath(written) if os.path.islink(written) else ""
    if _below(folder, home) and (not ends or _below(ends, home) or _CACHED.search(ends)):
        return
    raise ValueError(
        f"{path}: leads out of the data set's folder {root} to {ends or folder}; put a copy there, "
        "or set params.yaml: dataset.root to the folder that holds all of it"
    )


def _below(path: str, home: str) -> bool:
    return path == home or path.startswith(home.rstrip(os.sep) + os.sep)
