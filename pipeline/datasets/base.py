"""Data sets, their scenes (a photo and its human mask, if any) and the reading of masks."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.scenes.classes import IGNORE_INDEX, LabelSpace
from pipeline.scenes.image_io import check_name, open_image, read_image, stored_mode
from pipeline.system.text import short_repr

MaskReader = Callable[[Path], np.ndarray]
# Pillow scales the values of a grey PNG of 2 or 4 bits to 0..255 by these factors.
_SCALED = {"L;2": 85, "L;4": 17}


@dataclass(frozen=True)
class Scene:
    """One photo of a data set.

    Attributes:
        image: file of the photo.
        mask: file of its human mask, or None; opened only to evaluate and to simulate labels.
        split: such as ``train`` or ``val``.
        key: unique name in the data set, ``<split>/<name>``.
    """

    image: Path
    mask: Path | None
    split: str
    key: str


@dataclass(frozen=True)
class Dataset:
    """A data set on disk.

    Attributes:
        root: its folder, as downloaded and unpacked.
        label_space: its classes.
        splits: names of its splits.
        find_scenes: lists the scenes of a split, in a fixed order.
        read_mask: reads a human mask as class indices, ``[H, W]`` uint8 with ``IGNORE_INDEX``.
        layout: description of the folder's contents, for messages.
        image_labels: file of image-level labels in the folder, or None.
        tables: other files that are read, such as the list of classes.
        remarks: given the scenes, lines that report what in the folder is ignored or was guessed.
    """

    root: Path
    label_space: LabelSpace
    splits: tuple[str, ...]
    find_scenes: Callable[[str], list[Scene]]
    read_mask: MaskReader
    layout: str
    image_labels: Path | None = None
    tables: tuple[Path, ...] = ()
    remarks: Callable[[list[Scene]], list[str]] = lambda scenes: []

    def scenes(self, split: str) -> list[Scene]:
        """The photos of one split, in a fixed order.

        Raises:
            ValueError: the split is unknown or has no photos, or a file's name is refused.
        """
        name = self.label_space.name
        if split not in self.splits:
            known = ", ".join(self.splits)
            raise ValueError(f"data set '{name}' has the splits {known}, not '{split}'")
        scenes = self.find_scenes(split)
        if not scenes:
            inside = sorted(path.name for path in self.root.iterdir() if path.name[0] != ".")
            there = ", ".join(short_repr(one) for one in inside[:8]) + ", ..." * (len(inside) > 8)
            raise ValueError(
                f"{self.root}: no photos of split '{split}' found; '{name}' needs {self.layout}"
                + (f"; found {there}" if inside else "")
            )
        for path in (path for scene in scenes for path in (scene.image, scene.mask) if path):
            check_name(path)
        return scenes


def id_table(ids: Sequence[int], num_ids: int = 0) -> np.ndarray:
    """Table for `read_ids`: the id of each class, by index; 255 is ignored.

    Args:
        ids: id of each class.
        num_ids: ids below this number that belong to no class are ignored, not refused.
    """
    table = np.full(256, -1, dtype=np.int16)
    table[:num_ids] = table[IGNORE_INDEX] = IGNORE_INDEX
    table[list(ids)] = np.arange(len(ids))
    return table


def read_ids(path: Path, table: np.ndarray) -> np.ndarray:
    """Read a human mask of ids as class indices, ``[H, W]`` uint8.

    Args:
        path: single-channel image of ids.
        table: ``[256]`` int16, class index or ``IGNORE_INDEX`` of each id, -1 if there is no such
            id in the data set.

    Raises:
        ValueError: the file is unreadable, has several channels, or contains an unknown id.
    """
    with open_image(path, "mask") as image:
        scale = _SCALED.get(stored_mode(image), 1)
        ids = np.asarray(image) // scale if scale > 1 else np.asarray(image)
    if ids.ndim != 2 or ids.dtype != np.uint8:
        raise ValueError(
            f"{path}: a mask must be one 8-bit channel of class ids, found {ids.dtype} of shape "
            f"{ids.shape}; export it as such"
        )
    mask: np.ndarray = table[ids]
    if (mask < 0).any():
        raise ValueError(
            f"{path}: contains id {int(ids[mask < 0][0])}, which the data set does not define; "
            "check that the mask belongs to this data set"
        )
    return mask.astype(np.uint8)


def read_annotated(scene: Scene, read_mask: MaskReader) -> tuple[Image.Image, np.ndarray]:
    """Read a scene's photo and its human mask, ``[H, W]`` uint8.

    Raises:
        ValueError: there is no mask, a file is unreadable, or the sizes differ.
    """
    if scene.mask is None:
        raise ValueError(f"{scene.image}: has no human mask; add one or leave the photo out")
    mask, photo = read_mask(scene.mask), read_image(scene.image)
    if mask.shape != (photo.height, photo.width):
        raise ValueError(
            f"{scene.mask}: is {mask.shape[1]}x{mask.shape[0]} pixels, but its photo "
            f"{scene.image.name} is {photo.width}x{photo.height}; export the mask at the photo's "
            "size"
        )
    return photo, mask


def read_scene_mask(scene: Scene, read_mask: MaskReader) -> np.ndarray:
    """The mask alone; see `read_annotated`."""
    return read_annotated(scene, read_mask)[1]
