"""Data sets: scenes (an image and, if there is one, its human mask) and mask reading."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.scenes.classes import IGNORE_INDEX, LabelSpace
from pipeline.scenes.image_io import check_name, open_picture, read_image, stored_mode
from pipeline.system.text import short_repr

MaskReader = Callable[[Path], np.ndarray]


# What Pillow multiplies the values of a grey PNG of 2 and 4 bits by, to fill 0..255.
_SCALED = {"L;2": 85, "L;4": 17}


@dataclass(frozen=True)
class Scene:
    """One photo of a data set.

    Attributes:
        image: file of the photo.
        mask: file of its human annotation, or None. Only evaluation and the simulation of
            image-level labels open it.
        split: such as ``train`` or ``val``.
        key: names the scene within the data set, ``<split>/<name>``.
    """

    image: Path
    mask: Path | None
    split: str
    key: str


def no_remarks(scenes: list[Scene]) -> list[str]:
    """For data sets that hold nothing but what is read."""
    return []


@dataclass(frozen=True)
class Dataset:
    """A data set on disk.

    Attributes:
        root: its folder, as downloaded and unpacked.
        label_space: its classes.
        splits: names of its splits.
        find_scenes: the scenes of a split, in a fixed order.
        read_mask: reads a human mask as class indices, ``[H, W]`` uint8 with ``IGNORE_INDEX``.
        layout: what the folder holds, in words.
        image_labels: file of image-level labels that lies in the folder, or None.
        tables: other files that are read, such as the list of classes.
        remarks: lines that say what in the folder is not read or was guessed, given the scenes.
    """

    root: Path
    label_space: LabelSpace
    splits: tuple[str, ...]
    find_scenes: Callable[[str], list[Scene]]
    read_mask: MaskReader
    layout: str
    image_labels: Path | None = None
    tables: tuple[Path, ...] = ()
    remarks: Callable[[list[Scene]], list[str]] = no_remarks

    def scenes(self, split: str) -> list[Scene]:
        """The photos of one split, in a fixed order.

        Raises:
            ValueError: unknown split, no photo where they should be, or a name that is not UTF-8.
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
                f"{self.root}: no photos of split '{split}' found; '{name}' holds {self.layout}"
                + (f"; there is {there}" if inside else "")
            )
        for path in (path for scene in scenes for path in (scene.image, scene.mask) if path):
            check_name(path)
        return scenes


def index_table(num_classes: int) -> np.ndarray:
    """For `read_ids`: ids are class indices already, and 255 is ignored."""
    table = np.full(256, -1, dtype=np.int16)
    table[:num_classes] = np.arange(num_classes)
    table[IGNORE_INDEX] = IGNORE_INDEX
    return table


def read_ids(path: Path, table: np.ndarray) -> np.ndarray:
    """Read a human mask of ids as class indices.

    Args:
        path: a single-channel picture of ids.
        table: ``[256]`` int16, class index or ``IGNORE_INDEX`` of each id, -1 where the data set
            has no such id.

    Returns:
        ``[H, W]`` uint8.

    Raises:
        ValueError: the file is unreadable, has several channels, or holds an id not in the table.
    """
    with open_picture(path, "mask") as picture:
        scale = _SCALED.get(stored_mode(picture), 1)
        ids = np.asarray(picture) // scale if scale > 1 else np.asarray(picture)
    if ids.ndim != 2 or ids.dtype != np.uint8:
        raise ValueError(
            f"{path}: a mask must be one 8-bit channel of class ids, found {ids.dtype} of shape "
            f"{ids.shape}; export it as such"
        )
    mask: np.ndarray = table[ids]
    if (mask < 0).any():
        raise ValueError(
            f"{path}: holds id {int(ids[mask < 0][0])}, which the data set does not define; "
            "check that the mask belongs to this data set"
        )
    return mask.astype(np.uint8)


def read_annotated(scene: Scene, read_mask: MaskReader) -> tuple[Image.Image, np.ndarray]:
    """Read a scene's photo, and its human mask ``[H, W]`` uint8, and check that they fit.

    Raises:
        ValueError: there is no mask, a file is unreadable, or they are of different sizes.
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
