"""Files that params.yaml names and folders behind links, as dependencies that DVC can watch.

DVC has no dependency that a parameter may leave empty, and its walk of a folder does not follow
links to folders. So what a stage reads lies in a folder of its own, ``data/inputs/<stage>``: links
to files, through which DVC sees their content, and digests of what links in the data set's folder
lead to. The stage ``inputs`` writes them all, in every run; each stage also writes its own, so that
DVC, which records dependencies after a stage, records what was read.
"""

import json
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.config.params import ClipParams, Params
from pipeline.system.devices import process_number
from pipeline.system.files import file_digest, fingerprint, remove, write_json

log = logging.getLogger("carb")
FOLDER = Path("data/inputs")
LINKED = "linked_folders.json"  # beside the links
STAGES = ("prepare", "pseudo", "encoder", "eval", "eval_pseudo")  # that have such a folder
OF_DATASET = ("prepare", "eval", "eval_pseudo")  # stages that read the data set's folder themselves
LOCAL_DIR, SAFETENSORS = "local-dir:", ".safetensors"
# Of a folder of CLIP: its configuration and weights, and what tokenizers read.
_CLIP_FILES = ("open_clip_model.safetensors", "*.json", "*.txt", "*.model")
_SYSTEM_FILES = ("thumbs.db", "desktop.ini")


class NamedFile(NamedTuple):
    """A file that a parameter names; ``weights`` may be missing where a stage need not run."""

    parameter: str
    path: Path
    weights: bool = False


def named_files(stage: str, params: Params) -> list[NamedFile]:
    """The files that a stage reads because params.yaml names them."""
    if stage == "pseudo":
        return _clip_files(params.clip)
    if stage in ("prepare", "eval", "eval_pseudo"):
        return _files_of(stage, params) + _named("pictures.font", params.pictures.font)
    weights = params.segmenter.encoder_weights
    if weights == "clip":
        return _clip_files(params.clip)
    if weights in ("none", "imagenet"):
        return []
    return [NamedFile("segmenter.encoder_weights", Path(weights), weights=True)]


def _files_of(stage: str, params: Params) -> list[NamedFile]:
    """The files that a stage with pictures reads beside their font."""
    if stage == "prepare":
        return _named("dataset.image_labels", params.dataset.image_labels)
    return _named("eval.photos", params.eval.photos)


def _named(parameter: str, path: str | None) -> list[NamedFile]:
    return [] if path is None else [NamedFile(parameter, Path(path))]


def _clip_files(clip: ClipParams) -> list[NamedFile]:
    """CLIP's files, where they lie in a folder; what open_clip downloads is fixed by its name."""
    if not clip.model.startswith(LOCAL_DIR):
        pretrained = clip.pretrained or ""
        named = pretrained.endswith(SAFETENSORS)
        return [NamedFile("clip.pretrained", Path(pretrained), weights=True)] if named else []
    folder = Path(clip.model.removeprefix(LOCAL_DIR))
    weights = folder / _CLIP_FILES[0]
    found = {path for pattern in _CLIP_FILES for path in folder.glob(pattern)} | {weights}
    return [NamedFile("clip.model", path, weights=True) for path in sorted(found)]


def watch_all(params: Params, *, memory: Path, folder: Path = FOLDER) -> None:
    """Write the folders of all stages.

    Weights that are missing are named in one line and leave their stage without a folder: DVC then
    refuses to run that stage, but still takes it from its cache where nothing else has changed.

    Args:
        params: all parameters.
        memory: file of the digests of linked files, by size and times; updated.
        folder: parent of the stages' folders.

    Raises:
        ValueError: a file other than weights cannot be read.
    """
    for stage in STAGES:
        files = named_files(stage, params)
        for name, path, weights in files:
            reason = _unreadable(path)
            if reason and not weights:
                raise ValueError(f"params.yaml: {name}: {path}: {reason}; correct the path")
            if reason:
                found = (name, path, reason, stage)
                log.warning("params.yaml: %s: %s: %s; stage '%s' cannot run without it", *found)
        _write_links(folder / stage, [file.path for file in files])
    linked = linked_folders(Path(params.dataset.root), memory)
    for stage in OF_DATASET:
        _write_linked(folder / stage, linked)


def watch(stage: str, params: Params, path: Path, *, folder: Path = FOLDER) -> None:
    """Write the folder of one stage, at its end: one that fails leaves everything as it was.

    Digests of linked folders are left as the stage ``inputs`` wrote them, if it ran.

    Args:
        stage: its name.
        params: all parameters.
        path: their file; nothing is written for another one than DVC's.
        folder: parent of the stages' folders.
    """
    if path != Path("params.yaml") or process_number(os.environ) > 0:
        return
    try:
        _write_links(folder / stage, [file.path for file in named_files(stage, params)])
        if stage in OF_DATASET and not (folder / stage / LINKED).is_file():
            _write_linked(folder / stage, linked_folders(Path(params.dataset.root), None))
    except OSError as error:  # a clone on a disk that is read only, and results that go elsewhere
        reason = error.strerror or error
        log.warning("%s: cannot be written (%s); DVC will not see what was read", folder, reason)


def _unreadable(path: Path) -> str:
    """Why a file cannot be read, or nothing."""
    if not path.is_file():
        return "is not a file" if path.exists() else "no such file"
    try:
        path.open("rb").close()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return ""


def _write_links(folder: Path, files: list[Path]) -> None:
    """Let a folder link to these files and to no others; if one is missing there is no folder."""
    if any(not file.is_file() for file in files):
        remove(folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    targets = {file.name: _target(file, folder) for file in files}
    for entry in folder.iterdir():
        kept = entry.is_symlink() and os.readlink(entry) == targets.get(entry.name)
        if not kept and entry.name != LINKED:
            remove(entry)
    for name, target in targets.items():
        if not (folder / name).is_symlink():
            try:
                (folder / name).symlink_to(target)
            except OSError:  # a file system without links, such as exFAT
                write_json(folder / name, file_digest(folder / target))


def _target(file: Path, folder: Path) -> str:
    """Where a link in ``folder`` leads: a clone may be moved with what lies in it."""
    path = os.path.abspath(file)
    inside = path.startswith(os.path.join(os.getcwd(), ""))
    return os.path.relpath(path, os.path.realpath(folder)) if inside else path


def _write_linked(folder: Path, linked: dict[str, Any]) -> None:
    """Write the digests of linked folders, where they changed."""
    file = folder / LINKED
    if not file.is_file() or json.loads(file.read_text("utf-8")) != linked:
        write_json(file, linked)


def linked_folders(root: Path, memory: Path | None) -> dict[str, Any]:
    """Digests of what links to folders lead to, by the link's path under ``root``.

    They depend on names and content alone, so that they are the same on another machine.

    Args:
        root: folder of the data set.
        memory: file of the digests of single files, by size and times; None: read them all.
    """
    known = _remembered(memory)
    read: dict[str, list[Any]] = {}
    found: dict[str, Any] = {}
    for folder in _links_below(root):
        content = []
        for file in _files_below(folder):
            status = file.stat()
            stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
            name = os.path.abspath(file)
            *before, digest = known.get(name) or [None]
            if before != stamp:
                digest = file_digest(file)
            read[name] = [*stamp, digest]
            content.append([file.relative_to(folder).as_posix(), digest])
        named = folder.relative_to(root).as_posix()
        found[named] = {"files": len(content), "sha256": fingerprint(content)}
    if memory is not None and read != known:
        write_json(memory, read)
    return found


def _remembered(memory: Path | None) -> dict[str, list[Any]]:
    """Size, times and digest of files at the last run; nothing if there is no sound record."""
    try:
        content = json.loads(memory.read_text("utf-8")) if memory is not None else {}
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _links_below(root: Path) -> Iterator[Path]:
    """The links to folders below a folder, in order."""
    for place, folders, _ in os.walk(root):
        folders.sort()
        yield from (Path(place, name) for name in folders if Path(place, name).is_symlink())


def _files_below(folder: Path) -> Iterator[Path]:
    """The files behind a link, in order, links followed and no folder entered twice."""
    seen = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        folders[:] = sorted(name for name in folders if name[0] != "." and real not in seen)
        if real in seen:
            continue
        seen.add(real)
        for name in sorted(names):
            hidden = name[0] == "." or name.lower() in _SYSTEM_FILES
            if not hidden and Path(place, name).is_file():
                yield Path(place, name)
