"""Data sets as their owners ship them: one module each, chosen by name."""

from collections.abc import Callable
from pathlib import Path

from pipeline.datasets import camvid, cityscapes, demo, folder, wilddash2
from pipeline.datasets.base import Dataset, Scene

ADAPTERS: dict[str, Callable[[Path], Dataset]] = {
    "camvid": camvid.open_dataset,
    "cityscapes": cityscapes.open_dataset,
    "demo": demo.open_dataset,
    "folder": folder.open_dataset,
    "wilddash2": wilddash2.open_dataset,
}


def open_dataset(name: str, root: Path | str) -> Dataset:
    """Open a data set.

    Args:
        name: a key of ``ADAPTERS``.
        root: the folder as downloaded and unpacked.

    Raises:
        ValueError: unknown data set or missing folder.
    """
    if name not in ADAPTERS:
        known = ", ".join(sorted(ADAPTERS))
        raise ValueError(f"params.yaml: dataset.name must be one of {known}, got '{name}'")
    if not Path(root).is_dir():
        raise ValueError(f"params.yaml: dataset.root: {root} is no folder; point it at '{name}'")
    return ADAPTERS[name](Path(root))


def load_scenes(name: str, root: Path | str, split: str) -> list[Scene]:
    """List the photos of one split of a data set, in a fixed order.

    Args:
        name: a key of ``ADAPTERS``.
        root: the folder as downloaded and unpacked.
        split: one of the data set's splits.

    Raises:
        ValueError: unknown data set or split, missing folder, or no photo where they should be.
    """
    return open_dataset(name, root).scenes(split)
