"""Files that params.yaml names and the data set's files, as dependencies that DVC can watch.

DVC has no dependency that a parameter may leave empty, and as a dependency the data set's folder
would be hashed with everything else in it, but without what links in it lead to. So the inputs of a
stage are in a folder of its own, ``data/inputs/<stage>``: links to files, and a manifest of the
data set's files. The stage ``inputs`` writes them all, in every run; each stage also writes its own
links, so that DVC, which records dependencies after a stage, records what was read.
"""

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.system.devices import process_number
from pipeline.system.files import atomic_path, file_digest, remove, write_json

if TYPE_CHECKING:
    from pipeline.config.clip import ClipParams
    from pipeline.config.params import Params

log = logging.getLogger("carb")
FOLDER = Path("data/inputs")
MANIFEST = "dataset.jsonl"  # beside the links
STAGES = ("prepare", "pseudo", "encoder", "eval", "eval_pseudo")  # that have such a folder
OF_DATASET = ("prepare", "eval", "eval_pseudo")  # stages that open the data set
LOCAL_DIR, SAFETENSORS = "local-dir:", ".safetensors"
# Of a folder of CLIP: its configuration and weights, and what tokenizers read.
_CLIP_FILES = ("open_clip_model.safetensors", "*.json", "*.txt", "*.model")


class NamedFile(NamedTuple):
    """A file that a parameter names; ``weights`` may be missing where a stage need not run."""

    parameter: str
    path: Path
    weights: bool = False


def named_files(stage: str, params: Any) -> list[NamedFile]:
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


def _files_of(stage: str, params: Any) -> list[NamedFile]:
    """The files that a stage with pictures reads beside their font."""
    if stage == "prepare":
        return _named("dataset.image_labels", params.dataset.image_labels)
    return _named("eval.photos", params.eval.photos)


def _named(parameter: str, path: str | None) -> list[NamedFile]:
    return [] if path is None else [NamedFile(parameter, Path(path))]


def _clip_files(clip: "ClipParams") -> list[NamedFile]:
    """CLIP's files, where they lie in a folder; what open_clip downloads is fixed by its name."""
    if not clip.model.startswith(LOCAL_DIR):
        pretrained = clip.pretrained or ""
        named = pretrained.endswith(SAFETENSORS)
        return [NamedFile("clip.pretrained", Path(pretrained), weights=True)] if named else []
    folder = Path(clip.model.removeprefix(LOCAL_DIR))
    weights = folder / _CLIP_FILES[0]
    found = {path for pattern in _CLIP_FILES for path in folder.glob(pattern)} | {weights}
    return [NamedFile("clip.model", path, weights=True) for path in sorted(found)]


def watch_all(params: "Params", *, manifest: list[list[str]] | None, folder: Path = FOLDER) -> None:
    """Write the folders of all stages.

    Weights that are missing are named in one line and leave their stage without a folder: DVC then
    refuses to run that stage, but still takes it from its cache where nothing else has changed.

    Args:
        params: all parameters.
        manifest: of the data set, see `dataset_manifest`; None: it cannot be opened, so
            that its stages run and say why.
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
    for stage in OF_DATASET:
        _write_manifest(folder / stage, manifest)


def watch(stage: str, params: Any, path: Path, *, folder: Path = FOLDER) -> None:
    """Write the folder of one stage, at its end: one that fails leaves everything as it was.

    The manifest of the data set is left as the stage ``inputs`` wrote it.

    Args:
        stage: its name.
        params: the sections that the stage reads.
        path: their file; nothing is written for another one than DVC's.
        folder: parent of the stages' folders.
    """
    if path != Path("params.yaml") or process_number(os.environ) > 0:
        return
    try:
        _write_links(folder / stage, [file.path for file in named_files(stage, params)])
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
        if not kept and entry.name != MANIFEST:
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


def _write_manifest(folder: Path, manifest: list[list[str]] | None) -> None:
    """Write the list of the data set's files where it changed; None: there is none."""
    file = folder / MANIFEST
    if manifest is None or not folder.is_dir():
        remove(file)
        return
    text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in manifest)
    if not file.is_file() or file.read_text("utf-8") != text:
        with atomic_path(file) as draft:
            draft.write_text(text, "utf-8")
