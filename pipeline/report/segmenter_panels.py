"""Segmenter panels: predictions next to pseudo-masks and human mask, and previews of training."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from pipeline.datasets.base import MaskReader, Scene, read_scene_mask
from pipeline.report.drawing import RgbArray, colour_mask, mark_region
from pipeline.report.panels import LegendItem, PanelRow, class_entries, downscale_for_panel, panel
from pipeline.report.pseudo_mask_panels import level_masks, level_titles
from pipeline.scenes.image_io import read_image
from pipeline.scenes.image_labels import ImageLabels
from pipeline.segmenter.inference import Segmenter, TestTimeOptions, predict_mask
from pipeline.store.reader import PseudoMaskStore

NOISY = "noisy"  # the preview that is a region, not a map of classes


class PanelInputs(NamedTuple):
    """Everything that the panels of a segmenter are made from.

    Attributes:
        segmenter: the model.
        presentation: test-time options.
        store: the pseudo-masks.
        labels: image-level labels; only the pseudo-masks use them.
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
    scenes: Sequence[Scene], inputs: PanelInputs, *, heading: str, photo_iou: Mapping[str, float]
) -> Image.Image:
    """A panel of images: pseudo-mask per level, prediction, and human mask if there is one.

    Args:
        scenes: the images, all with a human mask or all without.
        inputs: what the panel is made from.
        heading: above everything.
        photo_iou: mean IoU by key, for the titles.
    """
    rows = []
    for scene in scenes:
        own = photo_iou.get(scene.key)
        title = scene.key if own is None else f"{scene.key}: mIoU {100 * own:.1f} %"
        rows.append(PanelRow(_cells(scene, inputs), title))
    titles = ["photo", *level_titles(inputs.store), "segmenter", "human mask"]
    return panel(
        rows,
        titles=titles[: len(rows[0].cells)],
        legend=[class_entries(inputs.segmenter.classes, inputs.palette)],
        heading=heading,
    )


def _cells(scene: Scene, inputs: PanelInputs) -> list[RgbArray]:
    photo, row = read_image(scene.image), inputs.labels.get(scene.key)
    image, factor = downscale_for_panel(photo)
    size = (image.shape[0], image.shape[1])
    known = row is not None and scene.key in inputs.store.keys
    present = torch.from_numpy(row) if known else None
    masks = [
        *level_masks(inputs.store, scene.key, present, size),
        predict_mask(inputs.segmenter, photo, size, inputs.presentation),
    ]
    if scene.mask is not None:
        masks.append(read_scene_mask(scene, inputs.read_mask)[::factor, ::factor])
    return [image, *(colour_mask(mask, inputs.palette) for mask in masks)]


def ranked(
    scenes: Sequence[Scene], photo_iou: Mapping[str, float], count: int
) -> dict[str, list[Scene]]:
    """The ``count`` images with the best, median and worst mean IoU; images without an annotated
    pixel (NaN) are left out."""
    scored = [scene for scene in scenes if not math.isnan(photo_iou[scene.key])]
    order = sorted(scored, key=lambda scene: (-photo_iou[scene.key], scene.key))
    middle = max(0, (len(order) - count) // 2)
    found = {
        "best": order[:count],
        "median": order[middle : middle + count],
        "worst": order[-count:][::-1],
    }
    return {name: photos for name, photos in found.items() if photos}


def preview_panel(folder: Path, scenes: Iterable[Scene], palette: RgbArray) -> Image.Image | None:
    """The previews that training left, composed with their images; None if there are none.

    Args:
        folder: with ``previews.json`` and the PNGs that it names: maps of class indices, and the
            noisy region as 0 and 255.
        scenes: all images of the data set; previews of others are left out.
        palette: colours of the classes.

    Raises:
        ValueError: a file is missing or damaged.
    """
    file = folder / "previews.json"
    if not file.is_file():
        return None
    try:
        found = json.loads(file.read_text("utf-8"))
        images = {scene.key: scene.image for scene in scenes}
        rows = [
            PanelRow(_preview_cells(images[one["key"]], folder, one["maps"], palette), one["key"])
            for one in found["images"]
            if one["key"] in images
        ]
        if not rows:
            return None
        return panel(
            rows,
            titles=["photo", *map(_preview_title, found["images"][0]["maps"])],
            legend=[class_entries(found["classes"], palette), _region_legend()],
            heading=f"Training previews after {found['step']} steps",
        )
    except (OSError, SyntaxError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}: damaged ({error}); run `dvc repro --force train`") from None


def _preview_cells(
    path: Path, folder: Path, maps: Mapping[str, Any], palette: RgbArray
) -> list[RgbArray]:
    photo, cells = read_image(path), []
    for name, file in maps.items():
        with Image.open(folder / file, formats=("PNG",)) as opened:
            values = np.asarray(opened)
        image = np.asarray(photo.resize(values.shape[::-1], Image.Resampling.BOX))
        cells.append(
            mark_region(image, values > 0) if name == NOISY else colour_mask(values, palette)
        )
    return [image, *cells]


def _preview_title(name: str) -> str:
    return {"segmenter": name, NOISY: "reliable and noisy"}.get(name, f"CLIP, {name}")


def _region_legend() -> list[LegendItem]:
    plain = np.full((18, 36, 3), 150, np.uint8)
    noisy = "noisy: the segmenter disagrees with CLIP, or is less sure than carb.tau"
    return [
        LegendItem("reliable: the photo as it is", plain),
        LegendItem(noisy, mark_region(plain, np.ones(plain.shape[:2], np.bool_))),
    ]
