"""The embedded default: street scenes drawn from seeds, stored like any other data set.

``<split>/images/*.png`` and ``<split>/masks/*.png``, as ``python -m stages.draw`` writes them;
masks are palette pictures in Cityscapes colours.
"""

from pathlib import Path

import numpy as np

from pipeline.datasets.scene import Scene
from pipeline.label_spaces import IGNORE_INDEX, LABEL_SPACES

SPLITS = ("train", "val")
LABEL_SPACE = LABEL_SPACES["demo"]


def mask_table() -> np.ndarray:
    """Ids are the classes of the label space; drawn masks have no void."""
    table = np.full(256, -1, dtype=np.int16)
    table[: len(LABEL_SPACE.classes)] = np.arange(len(LABEL_SPACE.classes))
    table[IGNORE_INDEX] = IGNORE_INDEX
    return table


def find_scenes(root: Path, split: str) -> list[Scene]:
    """All drawn scenes of a split, by index."""
    return [
        Scene(image, root / split / "masks" / image.name, split, f"{split}/{image.stem}")
        for image in sorted((root / split / "images").glob("[!.]*.png"))
    ]
