"""The embedded demo data set: street scenes drawn by ``python -m stages.draw``.

``<split>/images/*.png`` and ``<split>/masks/*.png``; masks are palette PNGs in Cityscapes colours.
"""

from functools import partial
from pathlib import Path

from pipeline.datasets.base import Dataset, Scene, id_table, read_ids
from pipeline.scenes.classes import LABEL_SPACES

SPLITS = ("train", "val")
LABEL_SPACE = LABEL_SPACES["demo"]


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
        read_mask=partial(read_ids, table=id_table(range(len(LABEL_SPACE.classes)))),
        layout="train/images/*.png with train/masks/*.png, and the same for val; `python -m "
        "stages.draw` draws them",
    )
