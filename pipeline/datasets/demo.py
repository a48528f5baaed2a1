"""The embedded default: street scenes drawn from seeds, stored like any other data set.

``<split>/images/*.png`` and ``<split>/masks/*.png``, as ``python -m stages.draw`` writes them;
masks are palette pictures in Cityscapes colours.
"""

from functools import partial
from pathlib import Path

import numpy as np

from pipeline.label_spaces import IGNORE_INDEX, LABEL_SPACES
from pipeline.scene import Dataset, Scene, read_ids

SPLITS = ("train", "val")
LABEL_SPACE = LABEL_SPACES["demo"]


def _mask_table() -> np.ndarray:
    """Ids are the classes of the label space; drawn masks have no void."""
    table = np.full(256, -1, dtype=np.int16)
    table[: len(LABEL_SPACE.classes)] = np.arange(len(LABEL_SPACE.classes))
    table[IGNORE_INDEX] = IGNORE_INDEX
    return table


def _find_scenes(root: Path, split: str) -> list[Scene]:
    """All drawn scenes of a split, by index."""
    return [
        Scene(image, root / split / "masks" / image.name, split, f"{split}/{image.stem}")
        for image in sorted((root / split / "images").glob("[!.]*.png"))
    ]


def open_dataset(root: Path) -> Dataset:
    """The data set in a folder."""
    return Dataset(
        root=root,
        label_space=LABEL_SPACE,
        splits=SPLITS,
        find_scenes=partial(_find_scenes, root),
        read_mask=partial(read_ids, table=_mask_table()),
        layout="train/images/*.png with train/masks/*.png, and the same for val; `python -m "
        "stages.draw` draws them",
    )
