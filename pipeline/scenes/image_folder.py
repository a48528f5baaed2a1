"""Images in a folder and its subfolders: links are followed, and what is not read is reported."""

import logging
import os
import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from pipeline.scenes.image_io import PHOTO_ENDINGS
from pipeline.system.text import first_few

log = logging.getLogger("carb")
PAGE = "correct.html"  # marks a folder of proposed labels, whose pictures are no photos
# Folders that systems and programs make: thumbnails, deleted files.
NOT_OURS = {"@eadir", "__macosx", "thumbnails", "thumbs", "#recycle", "$recycle.bin", "lost+found"}
NOT_OURS |= {"#snapshot", "system volume information"}
_JUNK = {"thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"}
# What DVC links to where `cache.type` is `symlink`.
_CACHED = re.compile(r"[/\\]files[/\\]md5[/\\][0-9a-f]{2}[/\\][0-9a-f]{30}$")
LINES = 10  # of links


@dataclass
class Below:
    """Contents of a folder and its subfolders, without hidden files.

    Attributes:
        photos: files of the endings that were asked for, by path without ending.
        others: files of other kinds.
        left_out: folders of thumbnails and deleted files, which are not read.
        again: links to folders that are read at another place.
    """

    photos: dict[str, Path] = field(default_factory=dict)
    others: list[Path] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)
    again: list[Path] = field(default_factory=list)


def look_below(
    folder: Path, leave: Collection[str] = (), endings: Sequence[str] = PHOTO_ENDINGS
) -> Below:
    """List the files in a folder and its subfolders.

    Args:
        folder: where to look.
        leave: names of folders directly in it that are not read.
        endings: of the files to find, in small letters.

    Raises:
        ValueError: two photos differ by nothing but their ending, or a link leads nowhere.
        OSError: a folder cannot be read.
    """
    found = Below()
    for path in sorted(_files_below(folder, leave, found)):
        if path.suffix.lower() not in endings:
            if not path.suffix and path.is_symlink() and not path.exists():
                raise ValueError(f"{path}: a link that leads nowhere; correct or remove it")
            found.others.append(path)
            continue
        key = path.relative_to(folder).with_suffix("").as_posix()
        if key in found.photos:
            raise ValueError(f"{path}: {found.photos[key].name} has the same name; rename one")
        found.photos[key] = path
    return found


def photos_below(
    folder: Path, leave: Collection[str] = (), endings: Sequence[str] = PHOTO_ENDINGS
) -> dict[str, Path]:
    """The photos of `look_below` alone."""
    return look_below(folder, leave, endings).photos


def is_ours(name: str) -> bool:
    """Whether a file or folder is a user's: neither hidden nor made by a system."""
    small = name.casefold()
    return not name.startswith(".") and small not in _JUNK and small not in NOT_OURS


def _files_below(folder: Path, leave: Collection[str], found: Below) -> Iterable[Path]:
    """All files of the user; adds to ``found`` which folders are not read."""
    if not folder.is_dir():
        return
    read = [os.path.realpath(folder)]  # without links: everything below these is read
    for place, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        if PAGE in files:
            folders.clear()
            continue
        folders.sort()
        names = [name for name in folders if Path(place) != folder or name not in leave]
        folders.clear()
        for name in names:
            path = Path(place, name)
            if name.casefold() in NOT_OURS:
                found.left_out.append(path)
            elif is_ours(name) and path.is_symlink() and not _first_time(path, read):
                found.again.append(path)
            elif is_ours(name):
                folders.append(name)
        yield from (Path(place, name) for name in files if is_ours(name))


def _first_time(link: Path, read: list[str]) -> bool:
    """Whether a link leads to a folder that is not read anyway; it is added to those that are.

    A folder above one that is read would lead back to the link, without end.
    """
    real = os.path.realpath(link)
    for one in read:
        hidden = any(part.startswith(".") for part in real[len(one) :].split(os.sep))
        if below(one, real) or (below(real, one) and not hidden):
            return False
    read.append(real)
    return True


def _raise(error: OSError) -> None:
    raise error


def not_read(folder: Path, found: Below) -> list[str]:
    """Lines that say what in a folder was not read."""
    lines = other_kinds(folder, found.others)
    if found.left_out:
        kinds = Counter(path.name for path in found.left_out)
        counts = ", ".join(f"{name} {count}" for name, count in kinds.most_common())
        lines.append(f"{folder}: folders of thumbnails or deleted files were not read: {counts}")
    for path in found.again:
        end = os.path.realpath(path)
        lines.append(f"{path}: leads to {end}, which is read already or lies above; not followed")
    return lines


def left_over(folder: Path, used: Collection[Path], why: str) -> list[str]:
    """A line that names the files below a folder that are not used; none if all are.

    Args:
        folder: where to look; may be missing.
        used: the files that are read.
        why: what the others are, in the plural.
    """
    rest = [path for path in look_below(folder, endings=()).others if path not in used]
    names = first_few([path.relative_to(folder) for path in rest])
    return [f"{folder}: {why}, not read ({len(rest)}): {names}"] if rest else []


def other_folders(folder: Path, known: Collection[str]) -> list[str]:
    """A line for each folder of pictures in a folder that has none of the known names."""
    lines = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and is_ours(path.name) and path.name not in known:
            count = len(look_below(path).photos)
            lines += [f"{path}: {count} pictures in it were not read"] if count else []
    return lines


def tell_not_read(
    folder: Path, found: Below, read: Collection[Path], leave: Sequence[Path] = ()
) -> None:
    """Log what in a folder was not read.

    Args:
        folder: the folder.
        found: what lies there.
        read: files of other kinds that were read.
        leave: folders that concern nobody, such as an earlier output.
    """
    real = [os.path.realpath(one) for one in leave if one.exists()]
    found.others = [
        path
        for path in found.others
        if path not in read and not any(below(os.path.realpath(path), one) for one in real)
    ]
    for line in not_read(folder, found):
        log.warning("%s", line)


def other_kinds(folder: Path, files: Sequence[Path]) -> list[str]:
    """A line that counts files of other kinds by their endings; none if there are none."""
    if not files:
        return []
    kinds = Counter(path.suffix.lower() or "no ending" for path in files)
    order = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
    counts = ", ".join(f"{kind} {count}" for kind, count in order)
    what = "files of other kinds were" if len(files) > 1 else "file of another kind was"
    return [f"{folder}: {len(files)} {what} not read: {counts}"]


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
