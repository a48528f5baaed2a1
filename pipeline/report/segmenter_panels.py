"""Segmenter panels: predictions beside pseudo-masks and human mask; previews of training."""

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from pipeline.datasets.base import MaskReader, Scene, read_scene_mask
from pipeline.evaluation.segmenter import SegmenterScore, score_segmenter
from pipeline.report.drawing import RgbArray, colour_mask, mark_region
from pipeline.report.panels import (
    LegendItem,
    PanelRow,
    class_entries,
    downscale_for_panel,
    evenly_spaced,
    panel,
)
from pipeline.report.pseudo_mask_panels import level_masks, level_titles
from pipeline.scenes.image_io import read_image
from pipeline.scenes.image_labels import ImageLabels
from pipeline.segmenter.inference import Segmenter, TestTimeOptions, predict_mask
from pipeline.store.reader import PseudoMaskStore

NOISY = "noisy"  # the preview that is a region, not a mask of classes
PER_STEP = ("segmenter", NOISY)  # previews that change; the others are levels
PREVIEW_STEPS = 5  # at most


class PanelInputs(NamedTuple):
    """Everything that the panels of a segmenter are made from.

    Attributes:
        segmenter: the model.
        test_time: test-time augmentation.
        store: the pseudo-masks.
        labels: image-level labels; only the pseudo-masks use them.
        read_mask: reads human masks.
        palette: colours of the classes.
    """

    segmenter: Segmenter
    test_time: TestTimeOptions
    store: PseudoMaskStore
    labels: ImageLabels
    read_mask: MaskReader
    palette: RgbArray

    def score(self, scenes: Sequence[Scene]) -> SegmenterScore:
        """Score the segmenter, with regions and pseudo-masks, on images with human masks."""
        return score_segmenter(
            self.segmenter,
            scenes,
            read_mask=self.read_mask,
            store=self.store,
            labels=self.labels,
            test_time=self.test_time,
        )


def segmenter_panels(
    scenes: Sequence[Scene], inputs: PanelInputs, *, heading: str, photo_iou: Mapping[str, float]
) -> Image.Image:
    """A panel of images: pseudo-mask per level, prediction, and human mask if there is one.

    Args:
        scenes: the images, all with a human mask or all without.
        inputs: what the panel is made from.
        heading: title of the panel.
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
        predict_mask(inputs.segmenter, photo, size, inputs.test_time),
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
    """A panel of the previews of training: pseudo-masks, predictions at a few steps, and the noisy
    region at the first and last of them; None if there are no previews.

    Args:
        folder: written by `pipeline.training.previews`.
        scenes: training and validation images; previews of other images are left out.
        palette: colours of the classes.

    Raises:
        ValueError: a file is missing or damaged.
    """
    file = folder / "previews.json"
    if not file.is_file():
        return None
    paths = {scene.key: scene.image for scene in scenes}
    try:
        found = json.loads(file.read_text("utf-8"))
        steps = evenly_spaced([*found.get("earlier", []), found], PREVIEW_STEPS)
        rows, titles = [], ["photo"]
        for image in found["images"]:
            if (key := image["key"]) in paths:
                files = _preview_files(image["maps"], key, steps)
                titles = ["photo", *files]
                rows.append(PanelRow(_preview_cells(paths[key], folder, files, palette), key))
        if not rows:
            return None
        legend = [class_entries(found["classes"], palette), _region_legend()]
        heading = f"Training previews up to step {found['step']}"
        return panel(rows, titles=titles, legend=legend, heading=heading)
    except (OSError, SyntaxError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}: damaged ({error}); run `dvc repro --force train`") from None


def _preview_files(
    last: Mapping[str, str], key: str, steps: Sequence[dict[str, Any]]
) -> dict[str, str]:
    """The files of an image's cells, by title."""
    at = {
        step["step"]: image["maps"]
        for step in steps
        for image in step["images"]
        if image["key"] == key
    }
    levels = {f"CLIP, {name}": file for name, file in last.items() if name not in PER_STEP}
    predictions = {f"step {step}": maps["segmenter"] for step, maps in at.items()}
    ends = {f"{NOISY}, step {step}": at[step][NOISY] for step in (min(at), max(at))}
    return levels | predictions | ends


def _preview_cells(
    path: Path, folder: Path, files: Mapping[str, str], palette: RgbArray
) -> list[RgbArray]:
    """The image at the size of its maps, and the maps drawn."""
    photo, drawn = read_image(path), []
    for title, file in files.items():
        with Image.open(folder / file, formats=("PNG",)) as opened:
            values = np.asarray(opened)
        image = np.asarray(photo.resize(values.shape[::-1], Image.Resampling.BOX))
        noisy = title.startswith(NOISY)
        drawn.append(mark_region(image, values > 0) if noisy else colour_mask(values, palette))
    return [image, *drawn]


def _region_legend() -> list[LegendItem]:
    plain = np.full((18, 36, 3), 150, np.uint8)
    noisy = "noisy: the segmenter disagrees with CLIP, or is less sure than carb.tau"
    return [
        LegendItem("reliable: the photo unchanged", plain),
        LegendItem(noisy, mark_region(plain, np.ones(plain.shape[:2], np.bool_))),
    ]
