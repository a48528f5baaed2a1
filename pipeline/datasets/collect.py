"""What `prepare` and `inputs` collect of a data set: index, image-level labels, file manifest.

Labels come from a file, or are simulated from human masks.
"""

import json
import logging
import os
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.dataset import DatasetParams
from pipeline.datasets import open_dataset
from pipeline.datasets.base import Dataset, Scene, read_scene_mask
from pipeline.datasets.image_label_files import match_keys, read_label_file
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.scenes.image_folder import link_lines
from pipeline.scenes.image_io import is_animated, read_image
from pipeline.scenes.image_labels import ImageLabels
from pipeline.scenes.index import USED, IndexedPhoto, SceneIndex
from pipeline.system.files import file_digest, write_json
from pipeline.system.progress import progress
from pipeline.system.text import Faults, first_few

ANIMATED = (".avif", ".gif", ".tif", ".tiff", ".webp")  # endings of files of several images
log = logging.getLogger("carb")


def used_scenes(dataset: Dataset) -> list[Scene]:
    """The training and validation photos; a data set may have no validation photos.

    Raises:
        ValueError: see `Dataset.scenes`.
    """
    return [scene for split in USED if split in dataset.splits for scene in dataset.scenes(split)]


def given_image_labels(
    scenes: list[Scene], dataset: Dataset, params: DatasetParams
) -> ImageLabels | None:
    """Image-level labels from a file, or None if they are to be simulated from masks.

    Logs the source. No photo is decoded.

    Raises:
        ValueError: labels and photos do not match, or no training photo has labels or a mask.
    """
    named = params.image_labels
    path = dataset.image_labels if named is None else Path(named)
    if path is None:
        annotated = [scene for scene in scenes if scene.mask is not None]
        if not any(scene.split == "train" for scene in annotated):
            raise ValueError(_no_labels(params))
        source = f"{len(annotated)} human masks (dataset.min_pixels {params.min_pixels})"
        log.info("image labels: simulated from %s", source)
        return None
    authors = "the authors' file " if path.suffix.lower() == ".npy" else ""
    log.info("image labels: from %s%s", authors, path)
    keys = [scene.key for scene in scenes]
    labels = match_keys(read_label_file(path, dataset.label_space.names), keys, path)
    _warn_unlabelled(labels, keys, path)
    fault = f"{path}: no training photo has a class; add the classes in them"
    return _drop_empty(labels, fault)


def simulated_image_labels(
    scenes: list[Scene], dataset: Dataset, params: DatasetParams
) -> ImageLabels:
    """Image-level labels derived from human masks, as is usual in this field.

    A class is present from ``params.min_pixels`` pixels on; photos without a mask get no labels.

    Raises:
        ValueError: masks are unreadable or do not have their photo's size, or no training photo has
            a class.
    """
    names = dataset.label_space.names
    labels, faults = dict[str, np.ndarray](), Faults("masks or photos")
    annotated = [scene for scene in scenes if scene.mask is not None]
    for scene in progress(annotated, label="image labels", total=len(annotated)):
        with faults.collected():
            mask = read_scene_mask(scene, dataset.read_mask)
            counts = np.bincount(mask[mask != IGNORE_INDEX], minlength=len(names))
            labels[scene.key] = counts >= params.min_pixels
    faults.check()
    rows = list(labels.values())
    absent = [name for index, name in enumerate(names) if not any(row[index] for row in rows)]
    if absent and rows:  # masks of 0 and 255 contain one class only
        log.warning(
            "image labels: none of %d masks contains %s; masks hold class indices from 0, and 255 "
            "is ignored",
            len(rows),
            first_few(absent),
        )
    return _drop_empty(labels, _no_labels(params))


def collect_image_labels(
    scenes: list[Scene], dataset: Dataset, params: DatasetParams
) -> ImageLabels:
    """Image-level labels of a data set, from a file or simulated; raises as both do."""
    given = given_image_labels(scenes, dataset, params)
    return simulated_image_labels(scenes, dataset, params) if given is None else given


def _warn_unlabelled(labels: ImageLabels, keys: list[str], path: Path) -> None:
    """Log which photos a file of labels does not name.

    Validation photos need no labels, so they are named only if others of them have some.
    """
    for split, name, effect in (
        ("train", "training", "left out"),
        ("val", "validation", "their pseudo-masks are not scored"),
    ):
        own = [key for key in keys if key.startswith(f"{split}/")]
        missing = [key for key in own if key not in labels]
        if missing and (split == "train" or len(missing) < len(own)):
            counted = f"{len(missing)} {name} photos, {effect}: {first_few(missing)}"
            log.warning("image labels: %s has no line for %s", path, counted)


def _drop_empty(labels: ImageLabels, fault: str) -> ImageLabels:
    """Leave out photos without any class, which training cannot use, and log their keys.

    Raises:
        ValueError: with the text ``fault``; no training photo is left.
    """
    for key, row in labels.items():
        if not row.any():
            log.warning("image labels: %s has no class; left out", key)
    usable = {key: row for key, row in labels.items() if row.any()}
    if not any(key.startswith("train/") for key in usable):
        raise ValueError(fault)
    return usable


def _no_labels(params: DatasetParams) -> str:
    return (
        f"{params.root}: no training photo has an image-level label; name a file of them in "
        "params.yaml: dataset.image_labels, add masks to simulate them from, or let CLIP propose "
        "labels for your own photos: `carb prepare propose-labels`"
    )


def index_scenes(dataset: Dataset, scenes: list[Scene]) -> SceneIndex:
    """Decode each photo once and record its size and digest.

    Raises:
        ValueError: photos cannot be read; the message names them.
    """
    photos, faults = [], Faults("photos")
    for scene in progress(scenes, label="photos", total=len(scenes)):
        with faults.collected():
            image = read_image(scene.image)
            photos.append(
                IndexedPhoto(
                    key=scene.key,
                    split=scene.split,
                    image=scene.image.relative_to(dataset.root).as_posix(),
                    size=(image.height, image.width),
                    digest=file_digest(scene.image),
                )
            )
    faults.check()
    several = [scene.image for scene in scenes if scene.image.suffix.lower() in ANIMATED]
    several = [path for path in several if is_animated(path)]
    if several:
        count, names = len(several), first_few(several)
        log.warning("%d files contain several images; the first is read: %s", count, names)
    return SceneIndex(dataset.label_space, photos)


def log_remarks(dataset: Dataset, scenes: list[Scene]) -> None:
    """Log links that lead out of the data set's folder, what is ignored, and missing masks.

    Args:
        dataset: the data set.
        scenes: its training and validation photos.
    """
    paths = [path for scene in scenes for path in (scene.image, scene.mask) if path is not None]
    labels = [] if dataset.image_labels is None else [dataset.image_labels]
    for line in link_lines(dataset.root, [*paths, *labels]):
        log.info("%s", line)
    for line in dataset.remarks(scenes):
        log.warning("%s", line)
    for split in dict.fromkeys(scene.split for scene in scenes):
        own = [scene for scene in scenes if scene.split == split]
        without = [scene.key for scene in own if scene.mask is None]
        if 0 < len(without) < len(own):
            counted = f"{len(without)} of {len(own)} {split} photos have no mask"
            log.warning("%s: %s", counted, first_few(without))


def dataset_manifest(name: str, root: Path, memory: Path) -> list[list[str]] | None:
    """List the images, human masks and tables of a data set, for DVC; links are followed.

    The list depends on names and content only, so it is the same on every machine.

    Args:
        name: name of the data set, see `open_dataset`.
        root: its folder.
        memory: cache of digests by size and times, so that only changed files are read; updated.

    Returns:
        ``path, size in bytes, SHA-256`` per file, paths relative to ``root``; or None if the data
        set cannot be opened. `prepare`, which opens it too, reports the error.
    """
    try:
        dataset = open_dataset(name, root)
        scenes = used_scenes(dataset)
        files = {path for scene in scenes for path in (scene.image, scene.mask) if path}
        files |= {*dataset.tables, *([dataset.image_labels] if dataset.image_labels else [])}
        return _manifest_lines(sorted(files, key=attrgetter("parts")), root, memory)
    except (OSError, ValueError):
        return None


def _manifest_lines(files: list[Path], root: Path, memory: Path) -> list[list[str]]:
    known, read = _cached_digests(memory), dict[str, list[Any]]()
    lines = []
    for file in files:
        name = file.relative_to(root).as_posix()
        try:
            status = file.stat()
        except OSError:
            lines.append([name, "missing", ""])
            continue
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        path = os.path.abspath(file)
        *before, digest = known.get(path) or [None]
        if before != stamp:
            digest = file_digest(file)
        read[path] = [*stamp, digest]
        lines.append([name, str(status.st_size), str(digest)])
    if read != known:
        write_json(memory, read)
    return lines


def _cached_digests(memory: Path) -> dict[str, list[Any]]:
    """The digests of the last run; empty if there is no valid record."""
    try:
        content = json.loads(memory.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    valid = isinstance(content, dict) and all(isinstance(row, list) for row in content.values())
    return content if valid else {}
