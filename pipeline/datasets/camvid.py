"""CamVid in the SegNet layout: ``<split>/*.png`` and ``<split>annot/*.png``, 11 classes,
480x360."""

from functools import partial
from pathlib import Path

import numpy as np

from pipeline.label_spaces import IGNORE_INDEX, LABEL_SPACES
from pipeline.scene import Dataset, Scene, read_ids

SPLITS = ("train", "val", "test")
LABEL_SPACE = LABEL_SPACES["camvid"]


def _mask_table() -> np.ndarray:
    """Ids 0..10 are the classes, 11 is void."""
    table = np.full(256, -1, dtype=np.int16)
    table[:11] = np.arange(11)
    table[[11, IGNORE_INDEX]] = IGNORE_INDEX
    return table


def _find_scenes(root: Path, split: str) -> list[Scene]:
    """All photos of a split, by name; a photo without annotation has no mask.

    Hidden files are none: archives packed on a Mac bring a ``._x.png`` beside each ``x.png``.
    """
    scenes = []
    for image in sorted((root / split).glob("[!.]*.png")):
        mask = root / f"{split}annot" / image.name
        scenes.append(Scene(image, mask if mask.exists() else None, split, f"{split}/{image.stem}"))
    return scenes


def open_dataset(root: Path) -> Dataset:
    """The data set in a folder."""
    return Dataset(
        root=root,
        label_space=LABEL_SPACE,
        splits=SPLITS,
        find_scenes=partial(_find_scenes, root),
        read_mask=partial(read_ids, table=_mask_table()),
        layout="train/*.png with trainannot/*.png, and the same for val",
    )
