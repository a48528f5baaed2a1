"""How good are the pseudo-masks and the segmenter, against human masks. Nothing here feeds
training."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pipeline.datasets.base import MaskReader, Scene, read_annotated, read_scene_mask
from pipeline.metrics import accuracy, confusion, iou, mean_iou, precision, recall
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.scenes.image_io import read_image
from pipeline.scenes.image_labels import ImageLabels
from pipeline.segmenter.inference import Segmenter, TestTimeOptions, most_likely, predict_many
from pipeline.store.masks import hard_mask
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.command import progress
from pipeline.views import fitted_size

Metrics = dict[str, Any]
SEGMENTER = "the segmenter"  # no level has a name with a space


class RegionScore:
    """How often two maps of classes are right inside one region of the pixels.

    Attributes:
        counts: ``[3, C]`` int64 by class of the first map: pixels, first right, second right.
    """

    def __init__(self, num_classes: int) -> None:
        self.counts = np.zeros((3, num_classes), dtype=np.int64)

    @property
    def pixels(self) -> int:
        """Pixels of the region."""
        return int(self.counts[0].sum())

    def add(
        self, region: np.ndarray, first: np.ndarray, second: np.ndarray, mask: np.ndarray
    ) -> None:
        """Count one photo; ``region`` is ``[H, W]`` bool, the others ``[H, W]`` of classes."""
        for row, chosen in enumerate((region, region & (first == mask), region & (second == mask))):
            self.counts[row] += np.bincount(first[chosen], minlength=self.counts.shape[1])

    def figures(self, total: int) -> Metrics:
        """Share of the pixels, and both accuracies within; NaN where the region is empty."""
        pixels, first, second = self.counts.sum(axis=1).tolist()
        return {
            "share": pixels / total if total else np.nan,
            "CLIP accuracy": first / (pixels or np.nan),
            "segmenter accuracy": second / (pixels or np.nan),
        }


@dataclass
class SegmenterScore:
    """What scoring a segmenter gives.

    Attributes:
        confusion: ``[C, C]`` int64, rows = mask.
        regions: ``reliable`` and ``noisy``, where there are pseudo-masks and image-level labels.
        photo_iou: mean IoU of each photo by itself, by key.
        beside: confusion matrices ``[C, C]`` of the segmenter and of the pseudo-masks of each
            level, given image-level labels, on the same photos: those that have such labels.
    """

    confusion: np.ndarray
    regions: dict[str, RegionScore] = field(default_factory=dict)
    photo_iou: dict[str, float] = field(default_factory=dict)
    beside: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, key: str, classes: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Count one photo: predicted and human classes, ``[H, W]`` each; gives its own matrix."""
        one = confusion(classes, mask, len(self.confusion))
        self.confusion = self.confusion + one
        self.photo_iou[key] = mean_iou(one)
        return one

    def add_beside(self, one: np.ndarray, levels: dict[str, np.ndarray], mask: np.ndarray) -> None:
        """Count one photo: the segmenter's matrix, and the classes ``[H, W]`` of each level."""
        self.beside[SEGMENTER] = self.beside[SEGMENTER] + one
        for name, classes in levels.items():
            self.beside[name] = self.beside[name] + confusion(classes, mask, len(self.confusion))


def metrics_of(matrix: np.ndarray, classes: Sequence[str]) -> Metrics:
    """The usual figures of a confusion matrix, as fractions of 1."""
    return {
        "mIoU": mean_iou(matrix),
        "pixel accuracy": accuracy(matrix),
        "IoU": dict(zip(classes, iou(matrix).tolist(), strict=True)),
    }


def per_class_rows(matrix: np.ndarray, classes: Sequence[str]) -> list[Metrics]:
    """One row a class: IoU, precision, recall."""
    columns = zip(classes, iou(matrix), precision(matrix), recall(matrix), strict=True)
    return [
        {"class": name, "IoU": float(i), "precision": float(p), "recall": float(r)}
        for name, i, p, r in columns
    ]


def region_class_rows(score: SegmenterScore, classes: Sequence[str]) -> list[Metrics]:
    """One row a class that CLIP named: how much of it is noisy, and who is right there."""
    noisy = score.regions["noisy"].counts
    named = noisy[0] + score.regions["reliable"].counts[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = zip(classes, noisy[0] / named, *(noisy[1:] / noisy[0]), strict=True)
    return [
        {
            "CLIP's class": name,
            "noisy share": float(share),
            "CLIP accuracy, noisy": float(clip),
            "segmenter accuracy, noisy": float(segmenter),
        }
        for name, share, clip, segmenter in columns
    ]


def score_segmenter(
    segmenter: Segmenter,
    scenes: Sequence[Scene],
    *,
    read_mask: MaskReader,
    store: PseudoMaskStore | None,
    labels: ImageLabels,
    presentation: TestTimeOptions,
) -> SegmenterScore:
    """Score photos: no image-level labels shown, logits upsampled to the mask, arg-max.

    Args:
        segmenter: the model.
        scenes: photos with human masks.
        read_mask: reads the data set's masks.
        store: pseudo-masks, for the regions and to stand beside; None: neither.
        labels: image-level labels of the photos; only the pseudo-masks and the regions use them.
        presentation: scales, flips and windows.

    Raises:
        ValueError: a photo or mask is unreadable, or their sizes differ.
    """
    count = len(segmenter.classes)
    score = SegmenterScore(np.zeros((count, count), dtype=np.int64))
    if store is not None:
        score.regions = {"reliable": RegionScore(count), "noisy": RegionScore(count)}
        names = [SEGMENTER, *store.levels]
        score.beside = {name: np.zeros_like(score.confusion) for name in names}

    known = labels.keys() & set(store.keys) if store is not None else set()

    def choices(scene: Scene, logits: torch.Tensor) -> list[torch.Tensor]:
        if store is None or scene.key not in known:
            return []
        return _vote_and_clip(logits, labels[scene.key], store, scene.key)

    answers = predict_many(
        segmenter,
        scenes,
        read=lambda scene: read_annotated(scene, read_mask),
        presentation=presentation,
        more=choices,
    )
    for scene, _, mask, (classes, *looks) in progress(answers, label="evaluate", total=len(scenes)):
        one = score.add(scene.key, classes, mask)
        if store is not None and looks:
            levels = dict(zip(store.levels, looks[1:], strict=True))
            _score_regions(score.regions, levels[store.global_level], looks[0], mask)
            score.add_beside(one, levels, mask)
    return score


def _vote_and_clip(
    logits: torch.Tensor, image_labels: np.ndarray, store: PseudoMaskStore, key: str
) -> list[torch.Tensor]:
    """The segmenter's choice among the classes present, and CLIP's at each level, each ``[H, W]``
    uint8."""
    present = torch.from_numpy(image_labels).to(logits.device)
    size = (logits.shape[1], logits.shape[2])
    grids = [torch.from_numpy(store.read(key, level)).to(logits.device) for level in store.levels]
    clip = [hard_mask(grid, present, size).to(torch.uint8) for grid in grids]
    return [most_likely(logits.masked_fill(~present[:, None, None], -torch.inf)), *clip]


def _score_regions(
    regions: dict[str, RegionScore], clip: np.ndarray, vote: np.ndarray, mask: np.ndarray
) -> None:
    """Split a photo as CARB does at tau = 0, and count who is right where."""
    valid = mask != IGNORE_INDEX
    for name, region in (("reliable", vote == clip), ("noisy", vote != clip)):
        regions[name].add(region & valid, clip, vote, mask)


def score_store(
    store: PseudoMaskStore, scenes: Sequence[Scene], labels: ImageLabels, *, read_mask: MaskReader
) -> tuple[dict[str, np.ndarray], Metrics]:
    """Score the pseudo-masks, given image-level labels, at every level.

    Args:
        store: the pseudo-masks.
        scenes: photos with human masks.
        labels: their image-level labels; photos without are left out.
        read_mask: reads the data set's masks.

    Returns:
        a confusion matrix ``[C, C]`` int64 for each level; and how the agreement of all but the
        fused one tells
        right from wrong: share of pixels where all levels agree, accuracy of the global level there
        and elsewhere.
    """
    count = len(store.classes)
    matrices = {level: np.zeros((count, count), dtype=np.int64) for level in store.levels}
    agree, differ = RegionScore(count), RegionScore(count)
    last = [store.levels[0], *store.local_levels][-1]
    for scene in progress(scenes, label="evaluate", total=len(scenes)):
        if scene.key not in labels:
            continue
        mask, masks = read_scene_mask(scene, read_mask), []
        for level in store.levels:
            grid = torch.from_numpy(store.read(scene.key, level))
            present = torch.from_numpy(labels[scene.key])
            masks.append(hard_mask(grid, present, (mask.shape[0], mask.shape[1])).numpy())
            matrices[level] = matrices[level] + confusion(masks[-1], mask, count)
        looks = dict(zip(store.levels, masks, strict=True))
        same = np.all([looks[level] == masks[0] for level in store.local_levels], axis=0)
        valid = mask != IGNORE_INDEX
        for score, region in ((agree, same), (differ, ~same)):
            score.add(region & valid, masks[0], looks[last], mask)
    total = agree.pixels + differ.pixels
    names = {"CLIP accuracy": f"{store.levels[0]} accuracy"}
    names["segmenter accuracy"] = f"{last} accuracy"
    regions = {
        name: {names.get(key, key): value for key, value in score.figures(total).items()}
        for name, score in (("levels agree", agree), ("levels differ", differ))
    }
    return matrices, regions


def protocol(
    segmenter: Segmenter, scenes: Sequence[Scene], data: str, presentation: TestTimeOptions
) -> Metrics:
    """How the figures were made: what was shown to the model and how."""
    first = read_image(scenes[0].image)
    shown = fitted_size(
        (first.height, first.width), base_size=segmenter.base_size, stride=segmenter.stride
    )
    return {
        "data": data,
        "photos": len(scenes),
        "input": f"whole photo, the first of {first.height}x{first.width} shown at "
        f"{shown[0]}x{shown[1]}",
        "image-level labels shown": False,
        "flips, scales, windows": presentation.in_words(),
        "logits": "upsampled to the mask's size (bilinear), arg-max",
        "IoU": "summed over all photos; classes with an empty union and pixels of 255 left out",
    }
