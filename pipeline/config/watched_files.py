"""DVC dependencies for files that params.yaml names and for the data set's files.

DVC has no optional dependencies, and a data set's folder as a dependency would be hashed with
everything else in it, yet without the files that links in it lead to. So the inputs of a stage are
in a folder of its own, ``data/inputs/<stage>``: links to files, and a manifest of the data set.
The stage ``inputs`` writes all of these folders in every run; each stage also rewrites its own
links, because DVC records dependencies after a stage.
"""

import json
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from pipeline.config.clip import LOCAL_DIR, ClipParams
from pipeline.system.devices import process_number
from pipeline.system.files import NOTHING, atomic_path, file_digest, remove, write_json

if TYPE_CHECKING:
    from pipeline.config.params import Params

log = logging.getLogger("carb")
FOLDER = Path("data/inputs")
MANIFEST = "dataset.jsonl"  # next to the links
OF_DATASET = ("prepare", "eval", "eval_pseudo")  # stages that open the data set
STAGES = (*OF_DATASET, "pseudo", "encoder", "train")  # that have such a folder
SAFETENSORS = ".safetensors"
_CLIP_WEIGHTS = "open_clip_model.safetensors"
_SEGMENTER_FILES = ("model.safetensors", "carb.json", "config.json")
_CLIP_FILES = (_CLIP_WEIGHTS, "*.json", "*.txt", "*.model")  # with configuration and tokenizer


class NamedFile(NamedTuple):
    """A file that a parameter names; ``weights`` may be missing if DVC need not run the stage."""

    parameter: str
    path: Path
    weights: bool = False


def named_files(stage: str, params: Any) -> list[NamedFile]:
    """The files that a stage reads because params.yaml names them."""
    if stage in OF_DATASET:
        named = {"pictures.font": params.pictures.font}
        if stage == "prepare":
            named["dataset.image_labels"] = params.dataset.image_labels
        else:
            named["eval.photos"] = params.eval.photos
        return [NamedFile(name, Path(path)) for name, path in named.items() if path is not None]
    if stage == "train":
        return _segmenter_files(params.segmenter.weights)
    weights = "clip" if stage == "pseudo" else params.segmenter.encoder_weights
    if weights == "clip":
        return _clip_files(params.clip)
    if weights in ("none", "imagenet"):
        return []
    return [NamedFile("segmenter.encoder_weights", Path(weights), weights=True)]


def _segmenter_files(weights: str | None) -> list[NamedFile]:
    """Files of the earlier segmenter that a training starts from."""
    if weights is None:
        return []
    folder = Path(weights).parent if weights.endswith(SAFETENSORS) else Path(weights)
    names = _SEGMENTER_FILES if folder.is_dir() else _SEGMENTER_FILES[:1]
    return [NamedFile("segmenter.weights", folder / name, weights=True) for name in names]


def _clip_files(clip: ClipParams) -> list[NamedFile]:
    """CLIP's files on disk; those that open_clip downloads are identified by the model's name."""
    if not clip.model.startswith(LOCAL_DIR):
        pretrained = clip.pretrained or ""
        named = pretrained.endswith(SAFETENSORS)
        return [NamedFile("clip.pretrained", Path(pretrained), weights=True)] if named else []
    folder = Path(clip.model.removeprefix(LOCAL_DIR))
    found = {path for pattern in _CLIP_FILES for path in folder.glob(pattern)}
    files = sorted(found | {folder / _CLIP_WEIGHTS})
    return [NamedFile("clip.model", path, weights=True) for path in files]


def watch_all(params: "Params", *, manifest: list[list[str]] | None, folder: Path = FOLDER) -> None:
    """Write the folders of all stages.

    Missing weights are reported in one line and leave their stage without a folder: DVC then
    refuses to run that stage, but still takes it from its cache if nothing else has changed.

    Args:
        params: all parameters.
        manifest: of the data set, see `dataset_manifest`; None if it cannot be opened: its stages
            then run and report why.
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
    text = "".join(f"{json.dumps(line, ensure_ascii=False)}\n" for line in manifest or [])
    for stage in OF_DATASET:
        _write_manifest(folder / stage, None if manifest is None else text)


def watch(stage: str, params: Any, path: Path, *, folder: Path = FOLDER) -> None:
    """Rewrite the links of one stage, when it has succeeded; the manifest stays.

    Args:
        stage: its name.
        params: the sections that the stage reads.
        path: the parameter file; nothing is written unless it is DVC's.
        folder: parent of the stages' folders.
    """
    if path != Path("params.yaml") or process_number(os.environ) > 0:
        return
    try:
        _write_links(folder / stage, [file.path for file in named_files(stage, params)])
    except OSError as error:  # a read-only clone whose results are written elsewhere
        reason = error.strerror or error
        log.warning("%s: not writable (%s); DVC does not record what was read", folder, reason)


def _unreadable(path: Path) -> str:
    """Why a file cannot be read; empty if it can."""
    if not path.is_file():
        return "is not a file" if path.exists() else "no such file"
    try:
        path.open("rb").close()
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return ""


def _write_links(folder: Path, files: list[Path]) -> None:
    """Make a folder link to exactly these files; remove it if one of them is missing."""
    if any(not file.is_file() for file in files):
        remove(folder)
        return
    folder.mkdir(parents=True, exist_ok=True)
    targets = {file.name: _target(file, folder) for file in files}
    for entry in folder.iterdir():
        kept = entry.is_symlink() and os.readlink(entry) == targets.get(entry.name)
        if not kept and entry.name not in (MANIFEST, *(() if files else (NOTHING,))):
            remove(entry)
    if not files and folder.name not in OF_DATASET:  # these have a manifest
        (folder / NOTHING).write_text("params.yaml names no file for this stage\n", "utf-8")
    for name, target in targets.items():
        if not (folder / name).is_symlink():
            try:
                (folder / name).symlink_to(target)
            except OSError:  # a file system without links, such as exFAT
                write_json(folder / name, file_digest(folder / target))


def _target(file: Path, folder: Path) -> str:
    """Target of a link in ``folder``, relative for a file in the clone, which may be moved."""
    path = os.path.abspath(file)
    inside = path.startswith(os.path.join(os.getcwd(), ""))
    return os.path.relpath(path, os.path.realpath(folder)) if inside else path


def _write_manifest(folder: Path, text: str | None) -> None:
    """Write the list of the data set's files if it changed; delete it if there is none."""
    file = folder / MANIFEST
    if text is None or not folder.is_dir():
        remove(file)
        return
    if not file.is_file() or file.read_text("utf-8") != text:
        with atomic_path(file) as draft:
            draft.write_text(text, "utf-8")
