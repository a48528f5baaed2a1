"""Outputs of commands: what may be replaced, and the list of what carb wrote."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.system.devices import process_number
from pipeline.system.files import LIST, file_digest, is_hidden, put_in_place, remove, sync
from pipeline.system.text import short_repr


def outputs(
    command: str,
    *,
    folders: Mapping[str, Path] | None = None,
    files: Mapping[str, Path] | None = None,
    sources: Mapping[str, Path | None] | None = None,
) -> AbstractContextManager[None]:
    """Check at once what a command is going to replace; as a context, list what is written in it.

    Args:
        command: its name, as dvc.yaml calls it.
        folders: folders that it writes, by the options that name them.
        files: likewise.
        sources: what it reads.

    Raises:
        ValueError: something is there that carb did not write.
    """
    folders, files = folders or {}, files or {}
    check_outputs(command, folders=folders, files=files, sources=sources or {})
    return _listing([*folders.values(), *files.values()])


@contextmanager
def _listing(paths: list[Path]) -> Iterator[None]:
    """Name what is written meanwhile as carb's own; an output of dvc.yaml needs no list."""
    own, before = own_outputs(""), {path: _state(path) for path in paths}
    try:
        yield
    finally:
        if process_number(os.environ) == 0:
            for path in paths:
                if _state(path) != before[path] and _where(path) not in own:
                    _list(path)


def _state(path: Path) -> tuple[int, int] | None:
    """Tells whether a file or folder was replaced."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_ino, about.st_mtime_ns


def _list(path: Path) -> None:
    """Name a file, or all in a folder, as carb's own."""
    if path.is_dir():
        list_files(path, list(visible_files(path)))
    else:
        list_files(path.parent, [path.name])


def check_outputs(
    command: str,
    *,
    folders: Mapping[str, Path],
    files: Mapping[str, Path],
    sources: Mapping[str, Path | None],
) -> None:
    """Refuse to replace what carb did not write; see `outputs`."""
    own = own_outputs(command)
    for option, path in {**folders, **files}.items():
        _check_place(f"{option} {path}", path)
        for name, source in sources.items():
            if source is None or not source.exists():
                continue
            if source.resolve().is_relative_to(path.resolve()):
                raise ValueError(
                    f"{option} {path}: would be replaced, and {name} {source} lies there; name a "
                    f"new {'folder' if option in folders else 'file'}"
                )
    for option, path in folders.items():
        for other, place in {**folders, **files}.items():
            if other != option and path.resolve().is_relative_to(place.resolve()):
                raise ValueError(
                    f"{option} {path} and {other} {place}: must lie apart; name another place"
                )
    if len({path.resolve() for path in files.values()}) < len(files):
        raise ValueError(f"{' and '.join(files)}: must be different files; name another")
    for option, path in folders.items():
        if _where(path) not in own:
            check_folder(f"{option} {path}", path)
    for option, path in files.items():
        if _where(path) not in own:
            _check_file(f"{option} {path}", path)


def own_outputs(command: str) -> set[Path]:
    """Where dvc.yaml of the current folder places a command's outputs; '' means all commands."""
    file = Path("dvc.yaml")
    if not file.is_file():
        return set()
    from ruamel.yaml import YAML  # here, not on top: it takes a moment
    from ruamel.yaml.error import YAMLError

    try:
        stages = YAML(typ="safe", pure=True).load(file.read_bytes())["stages"].values()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, YAMLError):
        return set()  # DVC itself says what is wrong with it
    calls = re.compile(rf"\bstages[./]{re.escape(command)}(?!\w)")
    return {
        path
        for stage in stages
        if isinstance(stage, dict) and (not command or calls.search(str(stage.get("cmd"))))
        for path in _places(stage)
    }


def _where(path: Path) -> Path:
    """A path as dvc.yaml means it: from the current folder, links not followed."""
    return Path(os.path.abspath(path))


def _places(stage: dict[str, Any]) -> Iterator[Path]:
    """Outputs of a stage of dvc.yaml; each is a path, or a path with its options."""
    for kind in ("outs", "metrics", "plots"):
        for entry in stage.get(kind) or ():
            for name in [entry] if isinstance(entry, str) else entry:
                yield _where(Path(str(stage.get("wdir", "."))) / str(name))


def _check_place(named: str, path: Path) -> None:
    """Refuse a place that cannot be written to."""
    if path.is_dir() and os.access(path, os.W_OK):
        return
    home = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not home.is_dir():
        raise ValueError(f"{named}: {home} is a file, no folder; name another place")
    if not os.access(home, os.W_OK | os.X_OK):
        raise ValueError(f"{named}: {home} cannot be written to; name another place")


def check_folder(named: str, path: Path) -> None:
    """Refuse to replace a folder that holds what carb did not write.

    Args:
        named: the option and the path, for the message.
        path: the folder.

    Raises:
        ValueError: names what is there.
    """
    if not os.path.lexists(path) or (path.is_symlink() and not path.exists()):
        return
    if not path.is_dir():
        raise ValueError(f"{named}: is a file; name a folder")
    known = known_files(path)
    strange = [
        name for name in visible_files(path) if not is_known(path / name, known.get(name, []))
    ]
    if not strange:
        return
    changed = [name for name in strange if name in known]
    if changed:
        raise ValueError(
            f"{named}: {_listed(changed)} changed since carb wrote it; move it away, or name a new "
            "folder"
        )
    if known:
        raise ValueError(
            f"{named}: contains {_listed(strange)}, which carb did not write; move it away, or "
            "name a new folder"
        )
    tops = list(dict.fromkeys(name.split("/")[0] for name in strange))
    raise ValueError(
        f"{named}: contains {_listed(tops)}, which carb did not write (or an earlier version did, "
        "which kept no list of its files); move or delete it yourself, or name a new folder"
    )


def _listed(names: list[str]) -> str:
    """The first name, and how many there are."""
    more = len(names) - 1
    return short_repr(names[0]) + (
        f" and {more} {'others' if more > 1 else 'other'}" if more else ""
    )


def _check_file(named: str, path: Path) -> None:
    """Refuse to replace a file that carb did not write; an empty one is nobody's work."""
    if not os.path.lexists(path) or (path.is_symlink() and not path.exists()):
        return
    if path.is_dir():
        raise ValueError(f"{named}: is a folder; name a file")
    if not path.is_file():
        raise ValueError(f"{named}: is no ordinary file; name another")
    if path.stat().st_size and not is_known(path, known_files(path.parent).get(path.name, [])):
        raise ValueError(
            f"{named}: is there already, and carb did not write it, or it was changed since, or an "
            "earlier version wrote it; move it away, or name a new file"
        )


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
