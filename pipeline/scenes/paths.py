"""Paths written in files, which must stay in the data set's folder, and links, which are followed.

Photos and masks are copied into reports, so what a data set from elsewhere writes of paths must not
reach other files. A link was made by whoever set up this machine: it may lead elsewhere, and a line
says where.
"""

import os
import re
from collections.abc import Iterable
from pathlib import Path

# What DVC links to where `cache.type` is `symlink`.
_CACHED = re.compile(r"[/\\]files[/\\]md5[/\\][0-9a-f]{2}[/\\][0-9a-f]{30}$")
_NO_TEXT = re.compile("[\udc80-\udcff]")  # Python's signs for bytes that are no UTF-8
LINES = 10  # of links


def is_safe_filename(name: str) -> bool:
    """Whether a text is the name of a file and nothing else: no folder, not hidden, no control
    characters, not too long."""
    plain = name.isprintable() and not re.search(r"[/\\]|^\.|^$", name)
    return plain and len(name.encode("utf-8", "replace")) <= 255


def check_name(path: Path) -> None:
    """Refuse a name that is not UTF-8, in which tables of photos are written.

    Raises:
        ValueError: names the file, and says what to do.
    """
    written = os.path.abspath(path)
    if not written.isascii() and _NO_TEXT.search(written):
        raise ValueError(f"{written!a}: has a name that is not UTF-8; rename it")


def written_path(root: Path, written: str) -> Path:
    """The file in ``root`` that a path written in a file names; links on the way are followed.

    Raises:
        ValueError: the path is absolute, or leads up.
    """
    if Path(written).is_absolute() or ".." in Path(written).parts:
        raise ValueError(f"{written}: leads out of {root}; run `dvc repro prepare`")
    check_name(root / written)
    return root / written


def below(path: str, home: str) -> bool:
    """Whether a path is ``home`` or below it; both absolute and without links."""
    return path == home or path.startswith(home.rstrip(os.sep) + os.sep)


def link_lines(root: Path, paths: Iterable[Path]) -> list[str]:
    """Say where links within ``root`` lead, if that is elsewhere; those of DVC are left out.

    Args:
        root: a data set's folder; may be a link itself.
        paths: the files that are read, below ``root``.
    """
    files = set(paths)
    folders = {folder for parent in {path.parent for path in files} for folder in _up(parent, root)}
    home, lines = os.path.realpath(root), []
    groups: dict[tuple[Path, str], list[Path]] = {}  # links to files, by both folders
    for place in sorted(path for path in files | folders if path.is_symlink()):
        end = os.path.realpath(place)
        if below(end, home) or _CACHED.search(end):
            continue
        if place in folders:
            lines.append(f"{place} leads to {end}")
        else:
            groups.setdefault((place.parent, os.path.dirname(end)), []).append(place)
    for (folder, end), places in groups.items():
        if len(places) == 1:
            lines.append(f"{places[0]} leads to {os.path.realpath(places[0])}")
        else:
            lines.append(f"{folder}: {len(places)} links lead to files in {end}")
    if len(lines) > LINES:
        lines[LINES - 1 :] = [f"{root}: {len(lines) - LINES + 1} more links lead elsewhere"]
    return lines


def _up(folder: Path, root: Path) -> list[Path]:
    """A folder and those above it, up to ``root``, which is left out."""
    return [one for one in (folder, *folder.parents) if one != root and one.is_relative_to(root)]
