"""Collect what `prepare` writes: the index and the image-level labels, from a file or simulated
from human masks."""

import logging
from pathlib import Path

import numpy as np

from pipeline.config.dataset import DatasetParams
from pipeline.datasets.base import Dataset, MaskReader, Scene, read_scene_mask
from pipeline.datasets.label_files import match_keys, read_label_file
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.scenes.image_folder import link_lines
from pipeline.scenes.image_io import holds_several, read_image
from pipeline.scenes.image_labels import ImageLabels
from pipeline.scenes.index import USED, IndexedPhoto, SceneIndex
from pipeline.system.files import file_digest
from pipeline.system.progress import progress
from pipeline.system.text import Faults, first_few

ANIMATED = (".avif", ".gif", ".tif", ".tiff", ".webp")  # endings of files of several pictures
log = logging.getLogger("carb")


def simulate_image_labels(
    scenes: list[Scene], *, read_mask: MaskReader, num_classes: int, min_pixels: int
) -> ImageLabels:
    """Derive image-level labels from human masks, as this field does: a class counts if it is seen.

    Args:
        scenes: photos; those without a mask get no labels.
        read_mask: reads the data set's masks.
        num_classes: number of classes.
        min_pixels: pixels that a class needs to count as present.

    Raises:
        ValueError: masks are unreadable or of another size than their photos; names them.
    """
    labels, faults = {}, Faults("masks or photos")
    annotated = [scene for scene in scenes if scene.mask is not None]
    for scene in progress(annotated, label="image labels", total=len(annotated)):
        with faults.collected():
            mask = read_scene_mask(scene, read_mask)
            counts = np.bincount(mask[mask != IGNORE_INDEX], minlength=num_classes)
            labels[scene.key] = counts >= min_pixels
    faults.check()
    return labels


def drop_unlabelled(labels: ImageLabels) -> ImageLabels:
    """Leave out photos without any class, which training cannot use, and log their keys."""
    empty = [key for key, row in labels.items() if not row.any()]
    for key in empty:
        log.warning("image labels: %s has no class at all; left out", key)
    return {key: row for key, row in labels.items() if row.any()}


def warn_unlabelled(labels: ImageLabels, keys: list[str], path: Path) -> None:
    """Log which photos a file of labels does not name.

    Of validation photos only where others have labels: they need none.
    """
    for split, ends in (("train", "left out"), ("val", "their pseudo-masks are not scored")):
        own = [key for key in keys if key.startswith(f"{split}/")]
        missing = [key for key in own if key not in labels]
        if missing and (split == "train" or len(missing) < len(own)):
            log.warning(
                "image labels: %s has no line for %d %s photos, %s: %s",
                path,
                len(missing),
                {"train": "training", "val": "validation"}[split],
                ends,
                first_few(missing),
            )


def _label_file(dataset: Dataset, params: DatasetParams) -> Path | None:
    """The file of labels: the one that params name, or that of the data set's folder."""
    return dataset.image_labels if params.image_labels is None else Path(params.image_labels)


def given_image_labels(
    scenes: list[Scene], dataset: Dataset, params: DatasetParams
) -> ImageLabels | None:
    """Image-level labels that somebody wrote, or None: they are to be simulated from masks.

    No photo is decoded. A line says where the labels come from.

    Raises:
        ValueError: labels and photos do not fit, or no training photo has any label.
    """
    path = _label_file(dataset, params)
    if path is None:
        annotated = {scene.key for scene in scenes if scene.mask is not None}
        if not any(key.startswith("train/") for key in annotated):
            raise ValueError(_no_labels(params))
        log.info(
            "image labels: simulated from %d human masks (dataset.min_pixels %d)",
            len(annotated),
            params.min_pixels,
        )
        return None
    authors = "the authors' file " if path.suffix.lower() == ".npy" else ""
    log.info("image labels: from %s%s", authors, path)
    keys = [scene.key for scene in scenes]
    labels = match_keys(read_label_file(path, dataset.label_space.names), keys, path)
    warn_unlabelled(labels, keys, path)
    labels = drop_unlabelled(labels)
    if not _train_labelled(scenes, labels):
        raise ValueError(f"{path}: names no class of any training photo; add what is in them")
    return labels


def collect_image_labels(
    scenes: list[Scene], dataset: Dataset, params: DatasetParams
) -> ImageLabels:
    """Image-level labels of a data set: from the file that params name, or simulated.

    Raises:
        ValueError: labels and photos do not fit, or no training photo has any label.
    """
    given = given_image_labels(scenes, dataset, params)
    return simulated_image_labels(scenes, dataset, params) if given is None else given


def simulated_image_labels(
    scenes: list[Scene], dataset: Dataset, params: DatasetParams
) -> ImageLabels:
    """Image-level labels of a data set, from its masks.

    Raises:
        ValueError: a mask does not fit, or no training photo has any label.
    """
    labels = simulate_image_labels(
        scenes,
        read_mask=dataset.read_mask,
        num_classes=len(dataset.label_space.names),
        min_pixels=params.min_pixels,
    )
    _tell_of_classes_without_labels(labels, dataset.label_space.names)
    labels = drop_unlabelled(labels)
    if not _train_labelled(scenes, labels):
        raise ValueError(_no_labels(params))
    return labels


def _no_labels(params: DatasetParams) -> str:
    return (
        f"{params.root}: no training photo has an image-level label; name a file of them in "
        "params.yaml: dataset.image_labels, add masks to simulate them from, or have those of "
        "your own photos proposed: `python -m stages.prepare propose-labels`"
    )


def _train_labelled(scenes: list[Scene], labels: ImageLabels) -> bool:
    return any(scene.key in labels for scene in scenes if scene.split == "train")


def _tell_of_classes_without_labels(labels: ImageLabels, classes: list[str]) -> None:
    """Name the classes that no mask holds: masks of 0 and 255 hold one class alone."""
    rows = list(labels.values())
    absent = [name for place, name in enumerate(classes) if not any(row[place] for row in rows)]
    if absent and rows:
        log.warning(
            "image labels: none of %d masks shows %s; masks hold class indices from 0, and 255 is "
            "ignored",
            len(rows),
            first_few(absent),
        )


def used_scenes(dataset: Dataset) -> list[Scene]:
    """The training and validation photos: what training learns from and evaluation scores.

    A data set may have no validation photos.

    Raises:
        ValueError: see `Dataset.scenes`.
    """
    return [scene for split in USED if split in dataset.splits for scene in dataset.scenes(split)]


def index_scenes(dataset: Dataset, scenes: list[Scene]) -> SceneIndex:
    """Decode each photo once and record its size and digest.

    Raises:
        ValueError: photos cannot be read; the message names them.
    """
    photos, faults = [], Faults("photos")
    for scene in progress(scenes, label="photos", total=len(scenes)):
        with faults.collected():
            picture = read_image(scene.image)
            photos.append(
                IndexedPhoto(
                    key=scene.key,
                    split=scene.split,
                    image=scene.image.relative_to(dataset.root).as_posix(),
                    size=(picture.height, picture.width),
                    digest=file_digest(scene.image),
                )
            )
    faults.check()
    several = [scene.image for scene in scenes if scene.image.suffix.lower() in ANIMATED]
    several = [path for path in several if holds_several(path)]
    if several:
        log.warning(
            "%d files hold several pictures, of which the first is read: %s",
            len(several),
            first_few(several),
        )
    return SceneIndex(dataset.label_space, photos)


def tell_of_data(dataset: Dataset, scenes: list[Scene]) -> None:
    """Log a line for each link that leads elsewhere, and for what is passed over.

    Args:
        dataset: the data set.
        scenes: its training and validation photos.
    """
    paths = [path for scene in scenes for path in (scene.image, scene.mask) if path is not None]
    labels = dataset.image_labels
    for line in link_lines(dataset.root, [*paths, *([labels] if labels else [])]):
        log.info("%s", line)
    for line in [*dataset.remarks(scenes), *_without_masks(scenes)]:
        log.warning("%s", line)


def _without_masks(scenes: list[Scene]) -> list[str]:
    """Photos without a mask, where others of their split have one."""
    lines = []
    for split in dict.fromkeys(scene.split for scene in scenes):
        own = [scene for scene in scenes if scene.split == split]
        without = [scene.key for scene in own if scene.mask is None]
        if 0 < len(without) < len(own):
            lines.append(
                f"{len(without)} of {len(own)} {split} photos have no mask: {first_few(without)}"
            )
    return lines
