"""Outputs of commands: which files and folders may be replaced, checked before the work.

A person's files are never deleted. What is there is replaced only if it is empty, an output of this
project's dvc.yaml at its own place, or on the list that carb keeps of what it wrote
(`pipeline.system.output_lists`).
"""

import os
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from pipeline.system.launch import process_number
from pipeline.system.output_lists import is_known, known_files, list_files, visible_files
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
