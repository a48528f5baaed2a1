"""Image-level labels: all the supervision there is. Read from a CSV, or simulated from human
masks."""

import csv
import logging
from pathlib import Path

import numpy as np

from pipeline.config import DatasetParams
from pipeline.datasets.scene import Dataset, MaskReader, Scene, read_image
from pipeline.label_spaces import IGNORE_INDEX
from pipeline.runtime import atomic_path, progress

log = logging.getLogger("carb")
ImageLabels = dict[str, np.ndarray]  # key -> [C] bool


def simulate_image_labels(
    scenes: list[Scene], *, read_mask: MaskReader, num_classes: int, min_pixels: int
) -> ImageLabels:
    """Derive image-level labels from human masks, as this field does: a class counts if it is seen.

    Args:
        scenes: photos; those without a mask get no labels.
        read_mask: reads the data set's masks.
        num_classes: number of classes.
        min_pixels: a class is in the image from so many pixels on.

    Raises:
        ValueError: a mask is unreadable or of another size than its photo.
    """
    labels = {}
    annotated = [scene for scene in scenes if scene.mask is not None]
    for scene in progress(annotated, label="image labels", total=len(annotated)):
        mask = read_scene_mask(scene, read_mask)
        counts = np.bincount(mask[mask != IGNORE_INDEX], minlength=num_classes)
        labels[scene.key] = counts >= min_pixels
    return labels


def read_scene_mask(scene: Scene, read_mask: MaskReader) -> np.ndarray:
    """Read a scene's human mask and check that it fits its photo: ``[H, W]`` uint8.

    Raises:
        ValueError: there is none, it is unreadable, or of another size than the photo.
    """
    if scene.mask is None:
        raise ValueError(f"{scene.image}: has no human mask; add one or leave the photo out")
    mask = read_mask(scene.mask)
    size = read_image(scene.image).size
    if mask.shape != (size[1], size[0]):
        raise ValueError(
            f"{scene.mask}: is {mask.shape[1]}x{mask.shape[0]} pixels, but its photo "
            f"{scene.image.name} is {size[0]}x{size[1]}; export the mask at the photo's size"
        )
    return mask


def drop_unlabelled(labels: ImageLabels) -> ImageLabels:
    """Leave out photos without a single class: nothing can be learned from them. Says which."""
    empty = [key for key, row in labels.items() if not row.any()]
    for key in empty:
        log.warning("image labels: %s has no class at all; left out", key)
    return {key: row for key, row in labels.items() if row.any()}


def write_image_labels(path: Path, labels: ImageLabels, classes: list[str]) -> None:
    """Write ``key,<class>,...`` with 0/1, one line a photo."""
    with atomic_path(path) as draft, draft.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["key", *classes])
        writer.writerows([key, *row.astype(int)] for key, row in labels.items())


def read_image_labels(path: Path, classes: list[str]) -> ImageLabels:
    """Read image-level labels.

    Args:
        path: CSV with a header ``key,<class>,...``; the classes may stand in any order.
        classes: class names, by index.

    Raises:
        ValueError: the file is missing, lacks or doubles a class, doubles a photo, or holds more
            than 0 and 1; the message names file, line and what was found.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            rows = list(csv.reader(handle))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not readable as CSV ({error}); check the file") from None
    header = rows[0] if rows else []
    fault = _header_fault(header, classes)
    if fault:
        raise ValueError(
            f"{path}: the header must be 'key' and the {len(classes)} classes "
            f"({', '.join(classes)}), but {fault}"
        )
    order = [header.index(name) for name in classes]
    labels: ImageLabels = {}
    for number, row in enumerate(rows[1:], start=2):
        wrong = set(row[1:]) - {"0", "1"}
        if wrong or len(row) not in (0, len(header)):
            found = repr(min(wrong)) if wrong else f"{len(row)} columns"
            raise ValueError(
                f"{path}: line {number} must be a key and 0 or 1 for each of the {len(classes)} "
                f"classes, got {found}"
            )
        if not row:  # an empty line
            continue
        if row[0] in labels:
            raise ValueError(f"{path}: line {number} names {row[0]!r} again; keep one of the lines")
        labels[row[0]] = np.array([row[column] == "1" for column in order])
    return labels


def _header_fault(header: list[str], classes: list[str]) -> str:
    """What is wrong with the header, or nothing."""
    if header[:1] != ["key"]:
        return f"it begins with {header[0]!r}" if header else "the file is empty"
    unknown = set(header[1:]) - set(classes)
    if unknown:
        return f"{min(unknown)!r} is no class"
    for name in classes:
        if header.count(name) != 1:
            return f"{name!r} is {'there twice' if name in header else 'missing'}"
    return ""


def check_keys(labels: ImageLabels, keys: list[str], path: Path) -> None:
    """Refuse labels for photos that do not exist, and training photos without labels.

    Raises:
        ValueError: names the file and the first such photo.
    """
    unknown = sorted(set(labels) - set(keys))
    if unknown:
        raise ValueError(
            f"{path}: labels {unknown[0]!r}, which is no photo of the data set; remove its line"
        )
    missing = [key for key in keys if key.startswith("train/") and key not in labels]
    if missing:
        raise ValueError(f"{path}: has no line for the training photo '{missing[0]}'; add it")


def collect_image_labels(
    scenes: list[Scene], dataset: Dataset, params: DatasetParams
) -> ImageLabels:
    """Image-level labels of a data set: from the file that params name, or simulated.

    Raises:
        ValueError: labels and photos do not fit, or no training photo has any label.
    """
    classes = dataset.label_space.names
    if params.image_labels is None:
        labels = simulate_image_labels(
            scenes,
            read_mask=dataset.read_mask,
            num_classes=len(classes),
            min_pixels=params.min_pixels,
        )
    else:
        labels = read_image_labels(Path(params.image_labels), classes)
        check_keys(labels, [scene.key for scene in scenes], Path(params.image_labels))
    usable = drop_unlabelled(labels)
    if not any(scene.key in usable for scene in scenes if scene.split == "train"):
        raise ValueError(
            f"{params.root}: no training photo has an image-level label; name a CSV in "
            "params.yaml: dataset.image_labels, or add masks to simulate them from"
        )
    return usable
