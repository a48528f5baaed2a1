"""Data sets in their published layouts: one module each, chosen by ``dataset.name``."""

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
        raise ValueError(
            f"params.yaml: dataset.root: {root} is not a folder; set it to the folder of '{name}'"
        )
    return ADAPTERS[name](Path(root))


def load_scenes(name: str, root: Path | str, split: str) -> list[Scene]:
    """The scenes of one split; see `open_dataset` and `Dataset.scenes`."""
    return open_dataset(name, root).scenes(split)
