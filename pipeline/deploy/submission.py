"""Predictions as the Cityscapes server takes them: labelIds, full size, a name for each photo.

Source: github.com/mcordts/cityscapesScripts, evaluation/evalPixelLevelSemanticLabeling.py.
"""

import re
from collections.abc import Sequence

import numpy as np

from pipeline.datasets import cityscapes
from pipeline.datasets.base import Scene
from pipeline.scenes.image_io import open_picture

SIZE = (1024, 2048)  # (height, width) in pixels of every photo
TEST_PHOTOS = 1525
_NAME = re.compile(r"([a-z-]+_\d{6}_\d{6})(_leftImg8bit)?")


def label_ids(classes: Sequence[str]) -> np.ndarray:
    """The labelId of each class, ``[C]`` uint8.

    Raises:
        ValueError: a class is not one of Cityscapes'.
    """
    known = dict(zip(cityscapes.LABEL_SPACE.names, cityscapes.LABEL_IDS, strict=True))
    strange = [name for name in classes if name not in known]
    if strange:
        raise ValueError(
            f"--submission: the segmenter knows '{strange[0]}', which is no class of Cityscapes; "
            "give --model one that was trained on Cityscapes' classes"
        )
    return np.array([known[name] for name in classes], np.uint8)


def submission_names(scenes: Sequence[Scene]) -> dict[str, str]:
    """The name that the server expects for each photo's prediction, by key.

    Raises:
        ValueError: a photo has no name or not the size of Cityscapes' photos.
    """
    names: dict[str, str] = {}
    for scene in scenes:
        found = _NAME.fullmatch(scene.image.stem)
        if not found:
            raise ValueError(
                f"{scene.image}: the server takes photos named <city>_<sequence>_<frame>, such as "
                "berlin_000000_000019_leftImg8bit.png; take the photos of leftImg8bit"
            )
        with open_picture(scene.image, "picture") as picture:
            size = (picture.height, picture.width)
        if size != SIZE:
            raise ValueError(
                f"{scene.image}: the server takes predictions of {SIZE[1]}x{SIZE[0]} pixels, the "
                f"photo is {size[1]}x{size[0]}; take the original photos of leftImg8bit"
            )
        name = f"{found[1]}_predLabelIds.png"
        if name in names.values():
            raise ValueError(f"{scene.image}: another photo is of the same frame; keep one of them")
        names[scene.key] = name
    return names
