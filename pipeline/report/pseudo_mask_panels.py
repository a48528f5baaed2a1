"""Pseudo-mask panels: the mask of each level, what the last level changes, CLIP's confidence."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.datasets.base import Scene
from pipeline.report.drawing import RgbArray, changes, colour_mask, faded, heat
from pipeline.report.panels import LegendItem, PanelRow, class_entries, downscale_for_panel, panel
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.scenes.image_io import read_image
from pipeline.scenes.image_labels import ImageLabels
from pipeline.store.reader import PseudoMaskStore, hard_mask, upsampled

TOP_QUANTILE = 0.98  # of the confidence: the end of its colour scale
HumanMask = Callable[[Scene], np.ndarray | None]


class PanelData(NamedTuple):
    """What is drawn of one image, all of its panel size ``[H, W]``."""

    image: RgbArray
    masks: list[np.ndarray]  # one per level
    margin: np.ndarray  # see `top2_margin`
    human: list[np.ndarray]  # one or none


def level_masks(
    store: PseudoMaskStore, key: str, present: Tensor | None, size: tuple[int, int]
) -> list[np.ndarray]:
    """The pseudo-mask of each level, ``[H, W]``; all pixels ignored if ``present`` is None."""
    if present is None:
        return [np.full(size, IGNORE_INDEX) for _ in store.levels]
    grids = [torch.from_numpy(store.read(key, level)) for level in store.levels]
    return [hard_mask(grid, present, size).numpy() for grid in grids]


def top2_margin(logits: Tensor, present: Tensor, size: tuple[int, int]) -> np.ndarray:
    """The best minus the second-best logit of each pixel, among the present classes.

    Args:
        logits: ``[C, h, w]`` float, a grid that covers the image.
        present: ``[C]`` bool.
        size: ``(height, width)`` of the result.

    Returns:
        ``[H, W]`` float32; infinite where only one class is present.
    """
    rivals = upsampled(logits, size)[present]
    if len(rivals) < 2:
        return np.full(size, np.inf, np.float32)
    best = rivals.topk(2, dim=0).values
    return np.asarray((best[0] - best[1]).numpy())


def pseudo_panels(
    scenes: Sequence[Scene],
    store: PseudoMaskStore,
    *,
    palette: RgbArray,
    labels: ImageLabels | None,
    human_mask: HumanMask,
) -> Image.Image:
    """A panel of images: pseudo-mask per level, what the last level (the fused one, if there is
    one) changes against the global one, confidence at the global level, and human mask.

    Args:
        scenes: the images, all with a human mask or all without.
        store: the pseudo-masks.
        palette: colours of the classes.
        labels: image-level labels; None: not used, so all classes compete.
        human_mask: gives the human mask of an image, or None.
    """
    data = [_panel_data(scene, store, labels, human_mask) for scene in scenes]
    margins = np.concatenate([one.margin[np.isfinite(one.margin)] for one in data])
    # No margin is finite where one class is present, and all are 0 where logits are equal.
    top = (float(np.quantile(margins, TOP_QUANTILE)) if margins.size else 0.0) or 1.0
    several = len(store.levels) > 1
    rows = []
    for scene, one in zip(scenes, data, strict=True):
        cells = [one.image, *(colour_mask(mask, palette) for mask in one.masks)]
        if several:
            cells.append(changes(one.image, one.masks[0], one.masks[-1], palette))
        cells += [heat(one.margin, top), *(colour_mask(mask, palette) for mask in one.human)]
        rows.append(PanelRow(cells, scene.key))
    changed = [f"changed by {store.levels[-1]}"] if several else []
    titles = ["photo", *level_titles(store), *changed, "confidence", "human mask"]
    rule = "with image-level labels" if labels is not None else "without image-level labels"
    return panel(
        rows,
        titles=titles[: len(rows[0].cells)],
        legend=[class_entries(store.classes, palette), _legend(store, top)],
        heading=f"CLIP pseudo-masks {rule}",
    )


def level_titles(store: PseudoMaskStore) -> list[str]:
    """Titles of the masks of `level_masks`."""
    return [f"CLIP, {level}" for level in store.levels]


def _panel_data(
    scene: Scene, store: PseudoMaskStore, labels: ImageLabels | None, human_mask: HumanMask
) -> PanelData:
    image, factor = downscale_for_panel(read_image(scene.image))
    size = (image.shape[0], image.shape[1])
    row = np.ones(len(store.classes), np.bool_) if labels is None else labels[scene.key]
    present, human = torch.from_numpy(row), human_mask(scene)
    return PanelData(
        image=image,
        masks=level_masks(store, scene.key, present, size),
        margin=top2_margin(
            torch.from_numpy(store.read(scene.key, store.global_level)), present, size
        ),
        human=[] if human is None else [human[::factor, ::factor]],
    )


def _legend(store: PseudoMaskStore, top: float) -> list[LegendItem]:
    """The colours that stand for no class."""
    scale = heat(np.linspace(0, top, 120)[None].repeat(18, axis=0), top)
    text = (
        f"confidence, {store.global_level} level: best minus second-best similarity, 0 to {top:.2g}"
    )
    same = LegendItem("same as the global mask", faded(np.full((18, 18, 3), 90, np.uint8)))
    return [LegendItem(text, scale), *([same] if len(store.levels) > 1 else [])]
