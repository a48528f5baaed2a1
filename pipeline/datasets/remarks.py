"""What `prepare` says of a data set before it reads it: where links lead, and what is not read."""

import logging

from pipeline.datasets.base import Dataset, Scene
from pipeline.scenes.image_folder import named
from pipeline.scenes.paths import link_lines

log = logging.getLogger("carb")


def tell_of_data(dataset: Dataset, scenes: list[Scene]) -> None:
    """Log a line for each link that leads elsewhere, and for what is passed over.

    Args:
        dataset: the data set.
        scenes: its training and validation photos.
    """
    paths = [path for scene in scenes for path in (scene.image, scene.mask) if path is not None]
    labels = dataset.image_labels
    for line in link_lines(dataset.root, [*paths, *([labels] if labels else [])]):
        log.info("%s", line)
    for line in [*dataset.remarks(scenes), *_without_masks(scenes)]:
        log.warning("%s", line)


def _without_masks(scenes: list[Scene]) -> list[str]:
    """Photos without a mask, where others of their split have one."""
    lines = []
    for split in dict.fromkeys(scene.split for scene in scenes):
        own = [scene for scene in scenes if scene.split == split]
        without = [scene.key for scene in own if scene.mask is None]
        if 0 < len(without) < len(own):
            lines.append(
                f"{len(without)} of {len(own)} {split} photos have no mask: {named(without)}"
            )
    return lines
