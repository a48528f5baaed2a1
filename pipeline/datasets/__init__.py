"""Data sets as their owners ship them: one module each, chosen by name."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.datasets import camvid, demo
from pipeline.datasets.scene import Scene
from pipeline.label_spaces import LabelSpace


@dataclass(frozen=True)
class Dataset:
    """What the pipeline needs to know of a data set."""

    label_space: LabelSpace
    splits: tuple[str, ...]
    find_scenes: Callable[[Path, str], list[Scene]]
    mask_table: np.ndarray
    layout: str


DATASETS = {
    "camvid": Dataset(
        camvid.LABEL_SPACE,
        camvid.SPLITS,
        camvid.find_scenes,
        camvid.mask_table(),
        "train/*.png with trainannot/*.png, and the same for val",
    ),
    "demo": Dataset(
        demo.LABEL_SPACE,
        demo.SPLITS,
        demo.find_scenes,
        demo.mask_table(),
        "train/images/*.png with train/masks/*.png, and the same for val; `python -m stages.draw` "
        "draws them",
    ),
}


def load_scenes(name: str, root: Path | str, split: str) -> list[Scene]:
    """List the photos of one split of a data set, in a fixed order.

    Args:
        name: a key of ``DATASETS``.
        root: the folder as downloaded and unpacked.
        split: one of the data set's splits.

    Raises:
        ValueError: unknown data set or split, missing folder, or no photo where they should be.
    """
    if name not in DATASETS:
        known = ", ".join(sorted(DATASETS))
        raise ValueError(f"params.yaml: dataset.name must be one of {known}, got '{name}'")
    dataset, root = DATASETS[name], Path(root)
    if split not in dataset.splits:
        known = ", ".join(dataset.splits)
        raise ValueError(f"data set '{name}' has the splits {known}, not '{split}'")
    if not root.is_dir():
        raise ValueError(f"params.yaml: dataset.root: {root} is no folder; point it at '{name}'")
    scenes = dataset.find_scenes(root, split)
    if not scenes:
        raise ValueError(
            f"{root}: no photos of split '{split}' found; '{name}' holds {dataset.layout}"
        )
    return scenes
