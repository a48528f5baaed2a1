"""Pictures of the pseudo-masks: what each level says, what the last one changes, how sure CLIP
is."""

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
from pipeline.store.masks import hard_mask, upsampled
from pipeline.store.reader import PseudoMaskStore

SURE = 0.98  # share of the pixels whose confidence the colours tell apart
HumanMask = Callable[[Scene], np.ndarray | None]


def evenly_spaced(items: Sequence[Scene], count: int) -> list[Scene]:
    """A few items, evenly spread over all."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def no_human_mask(scene: Scene) -> None:
    """For pictures where human masks have no place."""


def level_masks(
    store: PseudoMaskStore, key: str, present: Tensor | None, size: tuple[int, int]
) -> list[np.ndarray]:
    """The pseudo-mask of each level, ``[H, W]``; all ignored where ``present`` is None."""
    if present is None:
        return [np.full(size, IGNORE_INDEX) for _ in store.levels]
    grids = [torch.from_numpy(store.read(key, level)) for level in store.levels]
    return [hard_mask(grid, present, size).numpy() for grid in grids]


def margin(logits: Tensor, present: Tensor, size: tuple[int, int]) -> np.ndarray:
    """How far the best class of each pixel is ahead of the second, in units of the logits.

    Args:
        logits: ``[C, h, w]`` float, a grid that spans the photo.
        present: ``[C]`` bool, the classes that compete.
        size: ``(height, width)`` of the answer.

    Returns:
        ``[H, W]`` float32; infinite where one class is alone.
    """
    rivals = upsampled(logits, size)[present]
    if len(rivals) < 2:
        return np.full(size, np.inf, np.float32)
    best = rivals.topk(2, dim=0).values
    return np.asarray((best[0] - best[1]).numpy())


class _Look(NamedTuple):
    """What is drawn of a photo."""

    image: RgbArray
    masks: list[np.ndarray]  # a level each
    ahead: np.ndarray  # the margin
    human: list[np.ndarray]  # one or none


def pseudo_panels(
    scenes: Sequence[Scene],
    store: PseudoMaskStore,
    *,
    palette: RgbArray,
    labels: ImageLabels | None,
    human_mask: HumanMask = no_human_mask,
) -> Image.Image:
    """A few photos, each with: the pseudo-mask of every level; what the last level (the fused one,
    if there is one) changes against the global one, the rest faded; how sure CLIP is at the level
    that whole crops learn from: the similarity of the best class minus that of the second; and the
    human mask, if there is one.

    Args:
        scenes: the photos, all with a human mask or all without.
        store: the pseudo-masks.
        palette: colours of the classes.
        labels: image-level labels of the photos; None: before any is known, all classes compete.
        human_mask: gives the human mask of a photo, or None.
    """
    looks = [_look(scene, store, labels, human_mask) for scene in scenes]
    margins = np.concatenate([look.ahead[np.isfinite(look.ahead)] for look in looks])
    top = float(np.quantile(margins, SURE)) if margins.size else 0.0
    top = top or 1.0  # one class alone, or all alike
    several = len(store.levels) > 1
    blocks = []
    for scene, look in zip(scenes, looks, strict=True):
        pictures = [look.image, *(colour_mask(mask, palette) for mask in look.masks)]
        if several:
            pictures.append(changes(look.image, look.masks[0], look.masks[-1], palette))
        pictures.append(heat(look.ahead, top))
        pictures += [colour_mask(mask, palette) for mask in look.human]
        blocks.append(PanelRow(pictures, scene.key))
    titles = ["photo", *level_titles(store)]
    titles += [f"changed by {store.levels[-1]}"] if several else []
    titles += ["confidence", "human mask"]
    compete = "before image labels, so all classes compete"
    if labels is not None:
        compete = "with image labels, so only the classes of a photo compete"
    return panel(
        blocks,
        titles=titles[: len(blocks[0].pictures)],
        legend=[class_entries(store.classes, palette), _marks(store, top)],
        heading=f"CLIP's pseudo-masks, {compete}",
    )


def level_titles(store: PseudoMaskStore) -> list[str]:
    """What stands over the pseudo-masks of `level_masks`."""
    return [f"CLIP, {level}" for level in store.levels]


def _look(
    scene: Scene, store: PseudoMaskStore, labels: ImageLabels | None, human_mask: HumanMask
) -> _Look:
    image, shrink = downscale_for_panel(read_image(scene.image))
    size = (image.shape[0], image.shape[1])
    rows = np.ones(len(store.classes), np.bool_) if labels is None else labels[scene.key]
    present = torch.from_numpy(rows)
    human = human_mask(scene)
    return _Look(
        image=image,
        masks=level_masks(store, scene.key, present, size),
        ahead=margin(torch.from_numpy(store.read(scene.key, store.global_level)), present, size),
        human=[] if human is None else [human[::shrink, ::shrink]],
    )


def _marks(store: PseudoMaskStore, top: float) -> list[LegendItem]:
    """What the colours mean that are of no class."""
    scale = heat(np.linspace(0, top, 120)[None].repeat(18, axis=0), top)
    sure = f"confidence, {store.global_level} level: best minus second similarity, 0 to {top:.2g}"
    same = LegendItem("as in the global mask", faded(np.full((18, 18, 3), 90, np.uint8)))
    return [LegendItem(sure, scale), *([same] if len(store.levels) > 1 else [])]
