"""Protection of users' files: a command replaces only what carb wrote, checked before its work.

What exists is replaced only if it is empty, an output of this project's dvc.yaml at its own place,
or on carb's list with the same bytes. The list is a hidden JSON file in each folder, one line per
item: runs append to it, and after a kill it is still readable.

    {"made_with": {...}}                              weights and options of all items below
    {"item": "a", "of": "...", "files": {"masks/a.png": [size, time, sha256], ...}}
"""

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, suppress
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
    replaceable: Collection[Path] = (),
) -> AbstractContextManager[None]:
    """Check at once what a command will replace; as a context, list what is written in it.

    Args:
        command: its name, as in dvc.yaml.
        folders: folders that it writes, by the options that name them.
        files: likewise.
        sources: what it reads.
        replaceable: files that are kept elsewhere, such as in git.

    Raises:
        ValueError: something exists that carb did not write, or places overlap.
    """
    folders, files = folders or {}, files or {}
    dag = _dvc_outputs()
    called = re.compile(rf"\bstages[./]{re.escape(command)}(?!\w)")
    own = {path for path, cmd in dag if called.search(cmd)}
    _check_overlap(folders, files, sources or {})
    for option, path in folders.items():
        if _absolute(path) not in own:
            _check_folder(f"{option} {path}", path)
    for option, path in files.items():
        if _absolute(path) not in own and path not in replaceable:
            _check_file(f"{option} {path}", path)
    return _listing([*folders.values(), *files.values()], {path for path, _ in dag})


@contextmanager
def _listing(paths: list[Path], own: set[Path]) -> Iterator[None]:
    """List what is written in the block; outputs of dvc.yaml need no list."""
    before = {path: _state(path) for path in paths}
    try:
        yield
    finally:
        if process_number(os.environ) == 0:
            for path in paths:
                if _state(path) == before[path] or _absolute(path) in own:
                    continue
                folder = path if path.is_dir() else path.parent
                names = visible_files(path) if path.is_dir() else [path.name]
                files = {name: _Stamp.of(folder / name, timed=False) for name in names}
                _append(folder, {"item": "", "of": "", "files": files})


def _state(path: Path) -> tuple[int, int] | None:
    """Differs after a file or folder was replaced."""
    with suppress(OSError):
        about = path.stat()
        return about.st_ino, about.st_mtime_ns
    return None


def _absolute(path: Path) -> Path:
    """An absolute path without ``..``; links are not followed."""
    return Path(os.path.abspath(path))


def _dvc_outputs() -> list[tuple[Path, str]]:
    """Outputs in the current folder's dvc.yaml, each with the command that makes it."""
    file = Path("dvc.yaml")
    if not file.is_file():
        return []
    from ruamel.yaml import YAML  # takes a moment
    from ruamel.yaml.error import YAMLError

    try:
        stages = YAML(typ="safe", pure=True).load(file.read_bytes())["stages"].values()
    except (OSError, ValueError, KeyError, TypeError, AttributeError, YAMLError):
        return []  # DVC itself reports the error
    return [
        (_absolute(Path(str(stage.get("wdir", "."))) / str(name)), str(stage.get("cmd")))
        for stage in stages
        if isinstance(stage, dict)
        for kind in ("outs", "metrics", "plots")
        for entry in stage.get(kind) or ()
        for name in ([entry] if isinstance(entry, str) else entry)  # a path, or with options
    ]


def _check_overlap(
    folders: Mapping[str, Path], files: Mapping[str, Path], sources: Mapping[str, Path | None]
) -> None:
    """Refuse outputs that cannot be written, contain a source, or lie in each other."""
    places = {**folders, **files}
    for option, path in places.items():
        _check_writable(f"{option} {path}", path)
        for name, source in sources.items():
            if source and source.exists() and source.resolve().is_relative_to(path.resolve()):
                raise ValueError(
                    f"{option} {path}: would replace {name} {source}; name a new "
                    f"{'folder' if option in folders else 'file'}"
                )
    for option, path in folders.items():
        for other, place in places.items():
            if other != option and path.resolve().is_relative_to(place.resolve()):
                raise ValueError(f"{option} {path}: is in {other} {place}; name another folder")
    if len({path.resolve() for path in files.values()}) < len(files):
        raise ValueError(f"{' and '.join(files)}: are the same file; name different files")


def _check_writable(named: str, path: Path) -> None:
    if path.is_dir() and os.access(path, os.W_OK):
        return
    home = next(parent for parent in path.absolute().parents if os.path.lexists(parent))
    if not home.is_dir():
        raise ValueError(f"{named}: {home} is a file, not a folder; name another place")
    if not os.access(home, os.W_OK | os.X_OK):
        raise ValueError(f"{named}: {home} is not writable; name another place")


def _check_folder(named: str, path: Path) -> None:
    """Refuse to replace a folder that contains what carb did not write."""
    if not path.exists():  # also not the target of a link
        return
    if not path.is_dir():
        raise ValueError(f"{named}: is a file; name a folder")
    known = _known_files(path)
    foreign = [n for n in visible_files(path) if not _is_known(path / n, known.get(n, []))]
    if not foreign:
        return
    if changed := [name for name in foreign if name in known]:
        problem = f"{_first(changed)} changed since carb wrote it"
    else:
        if not known:
            foreign = list(dict.fromkeys(name.split("/")[0] for name in foreign))
        problem = f"contains {_first(foreign)}, which carb did not write"
    raise ValueError(f"{named}: {problem}; move it away, or name a new folder")


def _first(names: list[str]) -> str:
    """The first name, and how many others there are."""
    return short_repr(names[0]) + (f" and {len(names) - 1} more" if len(names) > 1 else "")


def _check_file(named: str, path: Path) -> None:
    """Refuse to replace a file that carb did not write, unless it is empty."""
    if not path.exists():
        return
    if path.is_dir():
        raise ValueError(f"{named}: is a folder; name a file")
    if not path.is_file():
        raise ValueError(f"{named}: is not a regular file; name another")
    if path.stat().st_size and not _is_known(path, _known_files(path.parent).get(path.name, [])):
        raise ValueError(
            f"{named}: already exists, and carb did not write it or it was changed since; move it "
            "away, or name a new file"
        )


class _Stamp(NamedTuple):
    """A file as it was written: bytes, time in nanoseconds (0: not recorded), SHA-256."""

    size: int
    time: int
    sha256: str

    @classmethod
    def of(cls, path: Path, *, timed: bool) -> "_Stamp":
        about = path.stat()
        return cls(about.st_size, about.st_mtime_ns if timed else 0, file_digest(path))

    def fits(self, path: Path) -> bool:
        """Whether a file is unchanged; one of the same size and time is not read."""
        about = path.stat()
        same = about.st_size == self.size
        return same and (about.st_mtime_ns == self.time or file_digest(path) == self.sha256)


class _Item(NamedTuple):
    """Files that were written together, and a digest of their source (may be empty)."""

    of: str
    files: dict[str, _Stamp]


def _read_list(folder: Path) -> Iterator[dict[str, Any]]:
    """The lines of a folder's list, except for unreadable ones."""
    try:
        text = (folder / LIST).read_text("utf-8", "surrogateescape")
    except OSError:
        return
    for line in text.splitlines():
        with suppress(ValueError):
            content = json.loads(line)
            if isinstance(content, dict):
                yield content


def _items(folder: Path) -> Iterator[tuple[str, _Item]]:
    """The items of a folder's list by name, in order."""
    for line in _read_list(folder):
        with suppress(AttributeError, TypeError):
            files = {name: _Stamp(*stamp) for name, stamp in line.get("files", {}).items()}
            if files:
                yield str(line.get("item")), _Item(str(line.get("of")), files)


def _known_files(folder: Path) -> dict[str, list[_Stamp]]:
    """All that carb wrote into a folder so far, by relative path."""
    known: dict[str, list[_Stamp]] = {}
    for _, item in _items(folder):
        for name, stamp in item.files.items():
            known.setdefault(name, []).append(stamp)
    return known


def _is_known(path: Path, stamps: list[_Stamp]) -> bool:
    """Whether a file has bytes that carb wrote to it."""
    with suppress(OSError):
        return any(stamp.fits(path) for stamp in reversed(stamps))
    return False


def visible_files(folder: Path) -> Iterator[str]:
    """Relative paths of the files below a folder, and of links to folders, that are not hidden."""
    for place, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(place, name))]
        folders[:] = sorted(name for name in folders if not is_hidden(name))
        for name in sorted([*files, *links]):
            if not is_hidden(name):
                yield os.path.relpath(os.path.join(place, name), folder)


def _append(folder: Path, line: Mapping[str, Any]) -> None:
    """Add a line to a folder's list; it is on the disk when this returns."""
    with (folder / LIST).open("a", encoding="utf-8") as handle:
        start = "\n" if handle.tell() else ""  # a killed run may have left half a line
        handle.write(f"{start}{json.dumps(line)}\n")
    sync(folder / LIST)


class OutputList:
    """A folder that is written item by item, each atomically; finished ones are kept.

    Args:
        folder: the folder; it exists, and its files were written by carb.
        made_with: JSON-able weights and options on which the files depend.
    """

    def __init__(self, folder: Path, made_with: dict[str, Any]) -> None:
        self.folder, self._made_with = folder, made_with
        self._items = dict(_items(folder))
        headers = [line["made_with"] for line in _read_list(folder) if "made_with" in line]
        self.same = bool(headers) and headers[-1] == made_with

    def begin(self) -> None:
        """Delete results of another model or other settings, so that they are never mixed."""
        if self.same:
            return
        known = _known_files(self.folder)
        for name in list(visible_files(self.folder)):  # not by the list's names: "../photo"
            if not _is_known(self.folder / name, known.get(name, [])):
                continue
            remove(self.folder / name)
            for parent in (self.folder / name).parents:
                if parent == self.folder or not parent.is_dir() or any(parent.iterdir()):
                    break
                parent.rmdir()
        remove(self.folder / LIST)
        self._items = {}
        _append(self.folder, {"made_with": self._made_with})

    def has(self, name: str, of: str) -> bool:
        """Whether an item of the same source is finished and its files still exist."""
        item = self._items.get(name)
        return (item is not None and item.of == of) and all(
            _is_known(self.folder / file, [stamp]) for file, stamp in item.files.items()
        )

    @property
    def names(self) -> set[str]:
        """Names of all items that were written."""
        return set(self._items)

    @contextmanager
    def item(self, name: str, of: str = "") -> Iterator[Path]:
        """Yield a folder to write an item's files into; at the end they are moved into place.

        They are listed before that, so that carb knows them if it is killed in between.
        """
        draft = self.folder / ".carb.draft"
        remove(draft)
        try:
            draft.mkdir()
            yield draft
            below = sorted(path for path in draft.rglob("*") if path.is_file())
            files = {p.relative_to(draft).as_posix(): _Stamp.of(p, timed=True) for p in below}
            _append(self.folder, {"item": name, "of": of, "files": files})
            for file in files:
                place = self.folder / file
                place.parent.mkdir(parents=True, exist_ok=True)
                put_in_place(draft / file, place)
            before = self._items.get(name, _Item("", {})).files
            self._remove({file: stamp for file, stamp in before.items() if file not in files})
            self._items[name] = _Item(of, files)
        finally:
            remove(draft)

    def drop(self, name: str) -> None:
        """Delete an item that is no longer valid."""
        self._remove(self._items.pop(name, _Item("", {})).files)

    def _remove(self, files: dict[str, _Stamp]) -> None:
        for file, stamp in files.items():
            inside = ".." not in Path(file).parts and not Path(file).is_absolute()
            if inside and _is_known(self.folder / file, [stamp]):
                remove(self.folder / file)
