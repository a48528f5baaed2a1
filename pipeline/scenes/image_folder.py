"""Photos in a folder and its subfolders, and the photos that users' written names mean.

Links are followed. What is not read is reported.
"""

import difflib
import logging
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from pathlib import Path

from pipeline.scenes.image_io import PHOTO_ENDINGS
from pipeline.system.files import is_hidden
from pipeline.system.text import first_few, short_repr

log = logging.getLogger("carb")
PAGE = "correct.html"  # marks a folder of proposed labels, whose images are not photos
# Folders of thumbnails and deleted files that systems and programs make.
SYSTEM_FOLDERS = {
    *("@eadir", "__macosx", "thumbnails", "thumbs", "#recycle", "$recycle.bin", "lost+found"),
    *("#snapshot", "system volume information"),
}
# Path in DVC's cache, to which DVC links if `cache.type` is `symlink`.
_CACHED = re.compile(r"[/\\]files[/\\]md5[/\\][0-9a-f]{2}[/\\][0-9a-f]{30}$")
MAX_LINK_LINES = 10
# Usual names of a split's folder, in lower case; the first is the one in keys.
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {name: split for split, names in SPLITS.items() for name in names}


@dataclass
class FolderContents:
    """Contents of a folder and its subfolders, without hidden files.

    Attributes:
        photos: files with the endings that were asked for, by path without ending.
        others: other files.
        left_out: folders of thumbnails and deleted files, which are not read.
        again: links to folders that are read in another place.
    """

    photos: dict[str, Path] = field(default_factory=dict)
    others: list[Path] = field(default_factory=list)
    left_out: list[Path] = field(default_factory=list)
    again: list[Path] = field(default_factory=list)


def scan_folder(
    folder: Path, leave: Collection[str] = (), endings: Sequence[str] = PHOTO_ENDINGS
) -> FolderContents:
    """List the files in a folder and its subfolders.

    Args:
        folder: the folder; may be missing.
        leave: names of direct subfolders to skip.
        endings: endings of the files to find, in lower case.

    Raises:
        ValueError: two photos differ only in their ending, or a link is broken.
        OSError: a folder cannot be read.
    """
    found = FolderContents()
    # By parts, which compare faster than paths.
    for path in sorted(_files_below(folder, leave, found), key=attrgetter("parts")):
        if path.suffix.lower() not in endings:
            if not path.suffix and path.is_symlink() and not path.exists():
                raise ValueError(f"{path}: a broken link; correct or remove it")
            found.others.append(path)
            continue
        key = path.relative_to(folder).with_suffix("").as_posix()
        if key in found.photos:
            raise ValueError(f"{path}: {found.photos[key].name} has the same name; rename one")
        found.photos[key] = path
    return found


def is_user_file(name: str) -> bool:
    """Whether a file or folder is a user's: neither hidden nor made by a system."""
    return not is_hidden(name) and name.casefold() not in SYSTEM_FOLDERS


def _files_below(folder: Path, leave: Collection[str], found: FolderContents) -> Iterator[Path]:
    """All files of the user; adds to ``found`` which folders are not read."""
    if not folder.is_dir():
        return
    read = [os.path.realpath(folder)]  # everything below these is read
    for place, folders, files in os.walk(folder, onerror=_raise, followlinks=True):
        if PAGE in files:
            folders.clear()
            continue
        names = sorted(name for name in folders if Path(place) != folder or name not in leave)
        folders.clear()
        for name in names:
            path = Path(place, name)
            if name.casefold() in SYSTEM_FOLDERS:
                found.left_out.append(path)
            elif is_user_file(name) and path.is_symlink() and not _first_time(path, read):
                found.again.append(path)
            elif is_user_file(name):
                folders.append(name)
        yield from (Path(place, name) for name in files if is_user_file(name))


def _first_time(link: Path, read: list[str]) -> bool:
    """Whether a link leads to a folder that is not read anyway; adds that folder to ``read``.

    A folder above one that is read would lead back to the link, without end.
    """
    real = os.path.realpath(link)
    for one in read:
        hidden = any(part.startswith(".") for part in real[len(one) :].split(os.sep))
        if _is_inside(one, real) or (_is_inside(real, one) and not hidden):
            return False
    read.append(real)
    return True


def _raise(error: OSError) -> None:
    raise error


def _is_inside(path: str, folder: str) -> bool:
    """Whether a path is ``folder`` or below it; both absolute and without links."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


def not_read(folder: Path, found: FolderContents) -> list[str]:
    """Lines that report what in a folder was not read."""
    lines = []
    if found.others:
        kinds = Counter(path.suffix.lower() or "no ending" for path in found.others)
        order = sorted(kinds.items(), key=lambda item: (-item[1], item[0]))
        counts = ", ".join(f"{kind} {count}" for kind, count in order)
        one = len(found.others) == 1
        what = "file of another kind was" if one else "files of other kinds were"
        lines.append(f"{folder}: {len(found.others)} {what} not read: {counts}")
    if found.left_out:
        kinds = Counter(path.name for path in found.left_out)
        counts = ", ".join(f"{name} {count}" for name, count in kinds.most_common())
        lines.append(f"{folder}: folders of thumbnails or deleted files were not read: {counts}")
    for path in found.again:
        end = os.path.realpath(path)
        lines.append(f"{path}: leads to {end}, which is read already or lies above; not followed")
    return lines


def left_over(folder: Path, used: Collection[Path], why: str) -> list[str]:
    """A line that names the files below a folder that are not used; empty if all are.

    Args:
        folder: the folder; may be missing.
        used: the files that are read.
        why: what the other files are, in the plural.
    """
    rest = [path for path in scan_folder(folder, endings=()).others if path not in used]
    names = first_few([path.relative_to(folder) for path in rest])
    return [f"{folder}: {why}, not read ({len(rest)}): {names}"] if rest else []


def other_folders(folder: Path, known: Collection[str]) -> list[str]:
    """A line for each direct subfolder with images whose name is not known."""
    lines = []
    for path in sorted(folder.iterdir()):
        if path.is_dir() and is_user_file(path.name) and path.name not in known:
            count = len(scan_folder(path).photos)
            lines += [f"{path}: {count} images in it were not read"] if count else []
    return lines


def warn_not_read(
    folder: Path, found: FolderContents, read: Collection[Path], leave: Sequence[Path] = ()
) -> None:
    """Log what in a folder was not read.

    Args:
        folder: the folder.
        found: its contents.
        read: files of other kinds that were read.
        leave: folders not worth a warning, such as an earlier output.
    """
    real = [os.path.realpath(one) for one in leave if one.exists()]
    found.others = [
        path
        for path in found.others
        if path not in read and not any(_is_inside(os.path.realpath(path), one) for one in real)
    ]
    for line in not_read(folder, found):
        log.warning("%s", line)


def link_lines(root: Path, paths: Iterable[Path]) -> list[str]:
    """Lines that report where links out of ``root`` lead, except those into DVC's cache.

    Args:
        root: a data set's folder; may be a link itself.
        paths: the files that are read, below ``root``.
    """
    files = set(paths)
    parents = {path.parent for path in files}
    folders = {
        up
        for one in parents
        for up in (one, *one.parents)
        if up != root and up.is_relative_to(root)
    }
    home = os.path.realpath(root)
    groups: dict[tuple[Path, str], list[Path]] = {}  # links by their folder and the target's
    for place in sorted(path for path in files | folders if path.is_symlink()):
        end = os.path.realpath(place)
        if not _is_inside(end, home) and not _CACHED.search(end):
            groups.setdefault((place.parent, os.path.dirname(end)), []).append(place)
    lines = [
        f"{folder}: {len(places)} links lead into {end}"
        if len(places) > 1
        else f"{places[0]} leads to {os.path.realpath(places[0])}"
        for (folder, end), places in groups.items()
    ]
    if len(lines) > MAX_LINK_LINES:
        more = len(lines) - MAX_LINK_LINES + 1
        lines[MAX_LINK_LINES - 1 :] = [f"{root}: {more} more links lead elsewhere"]
    return lines


def normalise_name(name: str) -> str:
    """A photo's name as it is compared, whatever system wrote it.

    macOS stores accented letters as two characters; Windows writes backslashes.
    """
    return unicodedata.normalize("NFC", name.strip()).replace("\\", "/")


def without_ending(name: str) -> str:
    """A name without the ending of an image file."""
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in PHOTO_ENDINGS else name


def _tails(key: str) -> Iterator[str]:
    """A path and its ends: ``a/b/c``, ``b/c``, ``c``; also with the usual name of its split."""
    parts = key.split("/")
    for start, part in enumerate(parts):
        yield "/".join(parts[start:])
        if part.casefold() in _SPLIT_OF and start + 1 < len(parts):
            yield "/".join([_SPLIT_OF[part.casefold()], *parts[start + 1 :]])


class PhotoNames:
    """Finds the scene that a written name means: its key, its path or the last parts of it, with or
    without the file's ending. The longest match decides.

    Args:
        keys: keys of the scenes.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = dict.fromkeys(keys)
        self._ends: dict[str, list[str]] = {}  # end of a path -> the first two keys with that end
        for key in keys:
            for tail in _tails(normalise_name(key)):
                found = self._ends.setdefault(tail, [])
                if len(found) < 2 and key not in found:
                    found.append(key)

    def find(self, written: str) -> list[str]:
        """The key that a name means; two if it is ambiguous; none if it is unknown."""
        if written in self.keys:
            return [written]
        name = normalise_name(written)
        tails = (tail for one in (without_ending(name).strip(), name) for tail in _tails(one))
        return next((self._ends[tail] for tail in tails if tail in self._ends), [])

    def hint(self, written: str) -> str:
        """A suggestion for an unknown name."""
        name = without_ending(normalise_name(written))
        near = difflib.get_close_matches(name, list(self._ends), n=1, cutoff=0.8)
        if near:
            return f"did you mean {short_repr(near[0])}?"
        return f"names look like {short_repr(next(iter(self.keys), ''))}"
