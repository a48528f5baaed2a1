"""Lists of the files that carb wrote: a hidden file in each folder of them.

Only what a list names, with the same bytes, is ever replaced. The list is JSON, a line at a time:
a run that writes file by file adds to it, and a killed one leaves it readable.

    {"made_with": {...}}                              weights and options of all items below
    {"item": "a", "of": "...", "files": {"masks/a.png": [size, time, sha256], ...}}
    {"finished": true}                                nothing is left to be done
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.system.files import file_digest
from pipeline.system.replacing import LIST, is_hidden, put_in_place, remove, sync


class Stamp(NamedTuple):
    """A file as it was written: bytes, time in nanoseconds (0: not kept), SHA-256."""

    size: int
    time: int
    sha256: str

    @classmethod
    def of(cls, path: Path, *, timed: bool) -> "Stamp":
        """The stamp of a file."""
        about = path.stat()
        return cls(about.st_size, about.st_mtime_ns if timed else 0, file_digest(path))

    def fits(self, path: Path) -> bool:
        """Whether a file is still the same; that of the same size and time is not read."""
        about = path.stat()
        if about.st_size != self.size:
            return False
        return about.st_mtime_ns == self.time or file_digest(path) == self.sha256


class Item(NamedTuple):
    """Files that were written together, and what of; empty where that does not matter."""

    of: str
    files: dict[str, Stamp]


def read_lines(folder: Path) -> list[dict[str, Any]]:
    """The lines of a folder's list; none where there is no list, nor of what a kill cut off."""
    try:
        text = (folder / LIST).read_text("utf-8", "surrogateescape")
    except OSError:
        return []
    found = []
    for line in text.splitlines():
        try:
            content = json.loads(line)
        except ValueError:
            continue
        found += [content] if isinstance(content, dict) else []
    return found


def items_of(lines: list[dict[str, Any]]) -> Iterator[tuple[str, Item]]:
    """The items that a list names, by their name, in order."""
    for line in lines:
        try:
            files = {name: Stamp(*stamp) for name, stamp in line.get("files", {}).items()}
        except (AttributeError, TypeError):
            continue
        if files:
            yield str(line.get("item")), Item(str(line.get("of")), files)


def known_files(folder: Path) -> dict[str, list[Stamp]]:
    """What carb ever wrote into a folder, by path below it."""
    known: dict[str, list[Stamp]] = {}
    for _, item in items_of(read_lines(folder)):
        for name, stamp in item.files.items():
            known.setdefault(name, []).append(stamp)
    return known


def is_known(path: Path, stamps: list[Stamp]) -> bool:
    """Whether a file has bytes that carb wrote to it."""
    try:
        return any(stamp.fits(path) for stamp in reversed(stamps))
    except OSError:
        return False


def visible_files(folder: Path) -> Iterator[str]:
    """Files below a folder, and links to folders, that are not hidden: paths below it."""
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted([*files, *links]):
            if not is_hidden(name):
                yield os.path.relpath(os.path.join(place, name), folder)


def add_lines(folder: Path, *lines: Mapping[str, Any]) -> None:
    """Add to a folder's list; on the disk when this returns."""
    text = "".join(f"{json.dumps(line)}\n" for line in lines)
    with (folder / LIST).open("a", encoding="utf-8") as handle:
        handle.write(
            f"\n{text}" if handle.tell() else text
        )  # a killed run may have left half a line
    sync(folder / LIST)


def list_files(folder: Path, names: list[str]) -> None:
    """Name files as carb's own."""
    files = {name: Stamp.of(folder / name, timed=False) for name in names}
    add_lines(folder, {"item": "", "of": "", "files": files})


class OutputList:
    """A folder that is written item by item, each of them whole; finished ones are kept.

    Args:
        folder: the folder; it is there, and its files are carb's own.
        made_with: weights and options that change what is written, as JSON has them.
    """

    def __init__(self, folder: Path, made_with: dict[str, Any]) -> None:
        self.folder, self._made_with = folder, made_with
        lines = read_lines(folder)
        self._items = dict(items_of(lines))
        headers = [line["made_with"] for line in lines if "made_with" in line]
        self.same = bool(headers) and headers[-1] == made_with

    def begin(self) -> None:
        """Delete what was made otherwise: what two models or settings say is never mixed."""
        if self.same:
            return
        known = known_files(self.folder)
        for name in list(visible_files(self.folder)):  # never by the names of the list: "../photo"
            if not is_known(self.folder / name, known.get(name, [])):
                continue
            remove(self.folder / name)
            for parent in (self.folder / name).parents:
                if parent == self.folder or not parent.is_dir() or any(parent.iterdir()):
                    break
                parent.rmdir()
        remove(self.folder / LIST)
        self._items = {}
        add_lines(self.folder, {"made_with": self._made_with})

    def has(self, name: str, of: str) -> bool:
        """Whether an item was finished, of the same source, and its files are still there."""
        item = self._items.get(name)
        if item is None or item.of != of:
            return False
        return all(is_known(self.folder / file, [stamp]) for file, stamp in item.files.items())

    @property
    def names(self) -> set[str]:
        """Names of all items that were written."""
        return set(self._items)

    @contextmanager
    def item(self, name: str, of: str = "") -> Iterator[Path]:
        """Yield a folder to write an item's files into; they are moved into place in the end.

        They are listed before: what a kill leaves of them is known as carb's own.
        """
        draft = self.folder / ".carb.draft"
        remove(draft)
        try:
            draft.mkdir()
            yield draft
            files = {file: Stamp.of(draft / file, timed=True) for file in _files_below(draft)}
            add_lines(self.folder, {"item": name, "of": of, "files": files})
            for file in files:
                place = self.folder / file
                place.parent.mkdir(parents=True, exist_ok=True)
                put_in_place(draft / file, place)
            before = self._items.get(name, Item("", {})).files
            self._remove({file: stamp for file, stamp in before.items() if file not in files})
            self._items[name] = Item(of, files)
        finally:
            remove(draft)

    def drop(self, name: str) -> None:
        """Delete an item that does not hold any more."""
        self._remove(self._items.pop(name, Item("", {})).files)

    def _remove(self, files: dict[str, Stamp]) -> None:
        for file, stamp in files.items():
            inside = ".." not in Path(file).parts and not Path(file).is_absolute()
            if inside and is_known(self.folder / file, [stamp]):
                remove(self.folder / file)

    def finish(self) -> None:
        """Say that nothing is left to be done."""
        add_lines(self.folder, {"finished": True})


def _files_below(folder: Path) -> list[str]:
    """Files below a folder, hidden or not."""
    return sorted(
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()
    )
