"""Segmenter evaluation: confusion matrices, accuracy per CARB region, mean IoU per image."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from pipeline.datasets.base import MaskReader, Scene, read_annotated
from pipeline.metrics import accuracy, confusion, iou, mean_iou, precision, recall
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.scenes.image_io import read_image
from pipeline.scenes.image_labels import ImageLabels
from pipeline.segmenter.inference import Segmenter, TestTimeOptions, most_likely, predict_stream
from pipeline.store.reader import PseudoMaskStore, hard_mask
from pipeline.system.progress import prefetch_in_threads, progress
from pipeline.views import fitted_size

Metrics = dict[str, Any]
SEGMENTER = "the segmenter"  # names of levels contain no space
ACCURACIES = ("CLIP accuracy", "segmenter accuracy")


class RegionScore:
    """Accuracy of two class maps within one region of the images.

    Args:
        num_classes: C.
        names: of the two accuracies in `metrics`.

    Attributes:
        counts: ``[3, C]`` int64, per class of the first map: pixels, those where the first map is
            right, and those where the second is.
    """

    def __init__(self, num_classes: int, names: tuple[str, str] = ACCURACIES) -> None:
        self.counts, self.names = np.zeros((3, num_classes), dtype=np.int64), names

    @property
    def pixels(self) -> int:
        """Number of pixels in the region."""
        return int(self.counts[0].sum())

    def add(
        self, region: np.ndarray, pseudo: np.ndarray, predicted: np.ndarray, mask: np.ndarray
    ) -> None:
        """Add one image: ``region`` is ``[H, W]`` bool, the others are classes ``[H, W]``."""
        for row, right in enumerate((True, pseudo == mask, predicted == mask)):
            self.counts[row] += np.bincount(pseudo[region & right], minlength=self.counts.shape[1])

    def metrics(self, total: int) -> Metrics:
        """Share of the ``total`` pixels, and both accuracies; NaN for an empty region."""
        pixels, *right = self.counts.sum(axis=1).tolist()
        accuracies = (number / (pixels or np.nan) for number in right)
        share = pixels / total if total else np.nan
        return {"share": share, **dict(zip(self.names, accuracies, strict=True))}


@dataclass
class SegmenterScore:
    """Scores of a segmenter, summed over images.

    Attributes:
        confusion: ``[C, C]`` int64, rows = mask.
        regions: ``reliable`` and ``noisy``, on images with pseudo-masks and image-level labels.
        photo_iou: mean IoU of each image, by key.
        per_level: on the same images, confusion matrices ``[C, C]`` of the segmenter and of the
            pseudo-masks of each level (which use the image-level labels).
    """

    confusion: np.ndarray
    regions: dict[str, RegionScore] = field(default_factory=dict)
    photo_iou: dict[str, float] = field(default_factory=dict)
    per_level: dict[str, np.ndarray] = field(default_factory=dict)

    def add(self, key: str, classes: np.ndarray, mask: np.ndarray) -> np.ndarray:
        """Add one image, predicted and human classes ``[H, W]``, and return its matrix."""
        one = confusion(classes, mask, len(self.confusion))
        self.confusion = self.confusion + one
        self.photo_iou[key] = mean_iou(one)
        return one

    def add_levels(self, one: np.ndarray, levels: dict[str, np.ndarray], mask: np.ndarray) -> None:
        """Add one image: the segmenter's matrix, and the classes ``[H, W]`` of each level."""
        self.per_level[SEGMENTER] = self.per_level[SEGMENTER] + one
        for name, classes in levels.items():
            matrix = confusion(classes, mask, len(self.confusion))
            self.per_level[name] = self.per_level[name] + matrix


def metrics_of(matrix: np.ndarray, classes: Sequence[str]) -> Metrics:
    """mIoU, pixel accuracy and IoU per class, as fractions, from a confusion matrix."""
    return {
        "mIoU": mean_iou(matrix),
        "pixel accuracy": accuracy(matrix),
        "IoU": dict(zip(classes, iou(matrix).tolist(), strict=True)),
    }


def per_class_rows(matrix: np.ndarray, classes: Sequence[str]) -> list[Metrics]:
    """One row per class: IoU, precision, recall."""
    columns = zip(classes, iou(matrix), precision(matrix), recall(matrix), strict=True)
    return [
        {"class": name, "IoU": float(i), "precision": float(p), "recall": float(r)}
        for name, i, p, r in columns
    ]


def region_class_rows(score: SegmenterScore, classes: Sequence[str]) -> list[Metrics]:
    """One row per class of CLIP's pseudo-masks: noisy share, and both accuracies in it."""
    noisy = score.regions["noisy"].counts
    chosen = noisy[0] + score.regions["reliable"].counts[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        columns = zip(classes, noisy[0] / chosen, *(noisy[1:] / noisy[0]), strict=True)
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
    test_time: TestTimeOptions,
) -> SegmenterScore:
    """Score a segmenter on whole images, with logits upsampled to the size of the mask.

    Args:
        segmenter: the model.
        scenes: images with human masks.
        read_mask: reads the data set's masks.
        store: pseudo-masks, for regions and comparison; None: neither is computed.
        labels: image-level labels, used for pseudo-masks and regions only.
        test_time: test-time augmentation.

    Raises:
        ValueError: an image or mask is unreadable, or their sizes differ.
    """
    count = len(segmenter.classes)
    score = SegmenterScore(np.zeros((count, count), dtype=np.int64))
    if store is not None:
        score.regions = {"reliable": RegionScore(count), "noisy": RegionScore(count)}
        names = [SEGMENTER, *store.levels]
        score.per_level = {name: np.zeros_like(score.confusion) for name in names}
    known = labels.keys() & set(store.keys) if store is not None else set()

    def more(scene: Scene, logits: torch.Tensor) -> list[torch.Tensor]:
        if store is None or scene.key not in known:
            return []
        return _vote_and_levels(logits, labels[scene.key], store, scene.key)

    annotated = prefetch_in_threads(scenes, lambda scene: read_annotated(scene, read_mask))
    items = ((scene, *pair) for scene, pair in zip(scenes, annotated, strict=True))
    predictions = predict_stream(segmenter, items, test_time=test_time, more=more)
    for scene, _, mask, (classes, *maps) in progress(
        predictions, label="evaluate", total=len(scenes)
    ):
        one = score.add(scene.key, classes, mask)
        if store is not None and maps:
            levels = dict(zip(store.levels, maps[1:], strict=True))
            _add_regions(score.regions, levels[store.global_level], maps[0], mask)
            score.add_levels(one, levels, mask)
    return score


def _vote_and_levels(
    logits: torch.Tensor, image_labels: np.ndarray, store: PseudoMaskStore, key: str
) -> list[torch.Tensor]:
    """The segmenter's class among those present, and CLIP's at each level, each ``[H, W]``
    uint8."""
    present = torch.from_numpy(image_labels).to(logits.device)
    size = (logits.shape[1], logits.shape[2])
    grids = [torch.from_numpy(store.read(key, level)).to(logits.device) for level in store.levels]
    clip = [hard_mask(grid, present, size).to(torch.uint8) for grid in grids]
    return [most_likely(logits.masked_fill(~present[:, None, None], -torch.inf)), *clip]


def _add_regions(
    regions: dict[str, RegionScore], clip: np.ndarray, vote: np.ndarray, mask: np.ndarray
) -> None:
    """Split an image into CARB's regions at tau = 0, and add it to both."""
    valid = mask != IGNORE_INDEX
    for name, region in (("reliable", vote == clip), ("noisy", vote != clip)):
        regions[name].add(region & valid, clip, vote, mask)


def protocol(
    segmenter: Segmenter, scenes: Sequence[Scene], data: str, test_time: TestTimeOptions
) -> Metrics:
    """Evaluation protocol: input of the model, and computation of the metrics."""
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
        "flips, scales, windows": test_time.describe(),
        "logits": "upsampled to the mask's size (bilinear), arg-max",
        "IoU": "summed over all photos; classes with an empty union and pixels of 255 left out",
    }
