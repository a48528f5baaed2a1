"""Pictures of what a segmenter says of photos, beside the pseudo-masks and the human mask."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import torch
from PIL import Image

from pipeline.datasets.base import MaskReader, Scene, read_scene_mask
from pipeline.report.drawing import RgbArray, colour_mask
from pipeline.report.panels import PanelRow, class_entries, downscale_for_panel, panel
from pipeline.report.pseudo_mask_panels import level_masks, level_titles
from pipeline.scenes.image_io import read_image
from pipeline.scenes.image_labels import ImageLabels
from pipeline.segmenter.inference import Segmenter, TestTimeOptions, predict_mask
from pipeline.store.reader import PseudoMaskStore


class PanelInputs(NamedTuple):
    """All that a photo's pictures are made of.

    Attributes:
        segmenter: the model.
        presentation: how it is shown photos.
        store: the pseudo-masks.
        labels: image-level labels of photos; only the pseudo-masks use them.
        read_mask: reads human masks.
        palette: colours of the classes.
    """

    segmenter: Segmenter
    presentation: TestTimeOptions
    store: PseudoMaskStore
    labels: ImageLabels
    read_mask: MaskReader
    palette: RgbArray


def segmenter_panels(
    scenes: Sequence[Scene], sources: PanelInputs, *, heading: str, photo_iou: Mapping[str, float]
) -> Image.Image:
    """Photo, pseudo-mask of each level, prediction and human mask, if there is one: a block a
    photo, with its own mean IoU in the title where it has one.

    Args:
        scenes: the photos, all with a human mask or all without.
        sources: what the pictures are made of.
        heading: over everything.
        photo_iou: mean IoU by key.
    """
    blocks = []
    for scene in scenes:
        own = photo_iou.get(scene.key)
        title = scene.key if own is None else f"{scene.key}: mIoU {100 * own:.1f} %"
        blocks.append(PanelRow(_pictures(scene, sources), title))
    titles = ["photo", *level_titles(sources.store), "segmenter", "human mask"]
    return panel(
        blocks,
        titles=titles[: len(blocks[0].pictures)],
        legend=[class_entries(sources.segmenter.classes, sources.palette)],
        heading=heading,
    )


def _pictures(scene: Scene, sources: PanelInputs) -> list[RgbArray]:
    """The photo, and the classes of each level, of the segmenter and, if there are any, of the
    human mask."""
    photo, row = read_image(scene.image), sources.labels.get(scene.key)
    image, shrink = downscale_for_panel(photo)
    size = (image.shape[0], image.shape[1])
    known = row is not None and scene.key in sources.store.keys
    present = torch.from_numpy(row) if known else None
    masks = [
        *level_masks(sources.store, scene.key, present, size),
        predict_mask(sources.segmenter, photo, size, sources.presentation),
    ]
    if scene.mask is not None:
        masks.append(read_scene_mask(scene, sources.read_mask)[::shrink, ::shrink])
    return [image, *(colour_mask(mask, sources.palette) for mask in masks)]


def ranked(
    scenes: Sequence[Scene], photo_iou: Mapping[str, float], count: int
) -> dict[str, list[Scene]]:
    """The photos with the best, median and worst mean IoU of their own, so many of each; a photo
    without any annotated pixel has none and is left out."""
    scored = [scene for scene in scenes if not math.isnan(photo_iou[scene.key])]
    order = sorted(scored, key=lambda scene: (-photo_iou[scene.key], scene.key))
    middle = max(0, (len(order) - count) // 2)
    found = {
        "best": order[:count],
        "median": order[middle : middle + count],
        "worst": order[-count:][::-1],
    }
    return {name: photos for name, photos in found.items() if photos}
