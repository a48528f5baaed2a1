"""What is wrong with pseudo-masks, counted: by object size, by confusion, and what bounds them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from scipy import ndimage

from pipeline.datasets.base import MaskReader, Scene, read_scene_mask
from pipeline.evaluation.segmenter import Metrics
from pipeline.metrics import confusion, iou, mean_iou
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.scenes.image_labels import ImageLabels
from pipeline.store.masks import upsampled
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.progress import progress

# An object's share of the photo, up to which it is of that size.
SIZES = {"tiny": 0.001, "small": 0.01, "medium": 0.1, "large": 1.0}
AS_IT_IS, NO_LABELS = "as it is", "no image labels"
BOUNDS = (AS_IT_IS, NO_LABELS, "perfect labels", "best of two", "perfect boundaries")


@dataclass
class Findings:
    """Counts over photos.

    Attributes:
        matrices: ``[C, C]`` int64 of each level and bound, rows = mask.
        found: of each level, ``[sizes, C, 2]`` int64: pixels of human objects of that size and
            class, and those of them found.
        named: the same of the pseudo-mask's objects: pixels named, and those of them right.
        photo_iou: of each level, mean IoU of each photo by itself, by key.
    """

    matrices: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    found: dict[str, np.ndarray] = field(default_factory=dict)
    named: dict[str, np.ndarray] = field(default_factory=dict)
    photo_iou: dict[str, dict[str, float]] = field(default_factory=dict)


def objects(mask: np.ndarray) -> np.ndarray:
    """Number each connected region of one class (sides touch); the ignored class has regions too.

    Args:
        mask: ``[H, W]`` of classes.

    Returns:
        ``[H, W]`` int64 from 0.
    """
    numbers = np.zeros(mask.shape, dtype=np.int64)
    total = 0
    for one in np.unique(mask):
        regions, count = ndimage.label(mask == one)
        numbers[regions > 0] = regions[regions > 0] - 1 + total
        total += count
    return numbers


def size_class(numbers: np.ndarray) -> np.ndarray:
    """Index into ``SIZES`` of the object that each pixel belongs to, ``[H, W]``."""
    share = np.bincount(numbers.ravel()) / numbers.size
    sizes: np.ndarray = np.searchsorted(list(SIZES.values()), share)[numbers]
    return sizes


def by_size(classes: np.ndarray, other: np.ndarray, valid: np.ndarray, count: int) -> np.ndarray:
    """Pixels of each size and class of one map, and those where the other map agrees.

    Args:
        classes: ``[H, W]`` of classes, whose objects are measured.
        other: ``[H, W]`` of classes.
        valid: ``[H, W]`` bool, pixels that count.
        count: number of classes.

    Returns:
        ``[sizes, C, 2]`` int64.
    """
    sizes = size_class(objects(classes))
    table = np.zeros((len(SIZES), count, 2), dtype=np.int64)
    for column, chosen in enumerate((valid, valid & (classes == other))):
        np.add.at(table[..., column], (sizes[chosen], classes[chosen]), 1)
    return table


def majority(numbers: np.ndarray, pred: np.ndarray, count: int) -> np.ndarray:
    """Give every object the class that most of its pixels were predicted as, ``[H, W]``."""
    votes = np.bincount(numbers.ravel() * count + pred.ravel(), minlength=count)
    votes = np.pad(votes, (0, -len(votes) % count)).reshape(-1, count)
    chosen: np.ndarray = votes.argmax(axis=1)[numbers]
    return chosen


def _bounded(
    logits: torch.Tensor, present: torch.Tensor, mask: np.ndarray
) -> dict[str, np.ndarray]:
    """The pseudo-mask as it is, and as it would be with one thing perfect."""
    count = len(logits)
    truth = torch.from_numpy(mask.astype(np.int64))
    shown = torch.zeros(count, dtype=torch.bool)
    shown[torch.from_numpy(np.unique(mask[mask != IGNORE_INDEX]).astype(np.int64))] = True
    absent = torch.full_like(logits, -torch.inf)
    labelled = torch.where(present[:, None, None], logits, absent)
    plain = labelled.argmax(dim=0)
    next_best = labelled.scatter(0, plain[None], -torch.inf).max(dim=0)
    second = torch.where(next_best.values > -torch.inf, next_best.indices, plain)
    return {
        AS_IT_IS: plain.numpy(),
        NO_LABELS: logits.argmax(dim=0).numpy(),
        "perfect labels": torch.where(shown[:, None, None], logits, absent).argmax(dim=0).numpy(),
        "best of two": torch.where(truth == second, second, plain).numpy(),
        "perfect boundaries": majority(objects(mask), plain.numpy(), count),
    }


def examine(
    store: PseudoMaskStore, scenes: Sequence[Scene], labels: ImageLabels, *, read_mask: MaskReader
) -> Findings:
    """Look at the pseudo-masks of photos that have human masks and image-level labels."""
    findings, count = Findings(), len(store.classes)
    for scene in progress(scenes, label="examine", total=len(scenes)):
        mask = read_scene_mask(scene, read_mask)
        valid = mask != IGNORE_INDEX
        present = torch.from_numpy(labels[scene.key])
        for level in store.levels:
            grid = torch.from_numpy(store.read(scene.key, level))
            logits = upsampled(grid, (mask.shape[0], mask.shape[1]))
            maps = _bounded(logits, present, mask)
            for bound, pred in maps.items():
                one = confusion(pred, mask, count)
                key = (level, bound)
                findings.matrices[key] = findings.matrices.get(key, 0) + one
                if bound == AS_IT_IS:
                    findings.photo_iou.setdefault(level, {})[scene.key] = mean_iou(one)
            pred = maps[AS_IT_IS]
            found = by_size(mask, pred, valid, count)
            named = by_size(pred, mask, valid, count)
            findings.found[level] = findings.found.get(level, 0) + found
            findings.named[level] = findings.named.get(level, 0) + named
    return findings


def size_rows(findings: Findings, classes: Sequence[str]) -> list[Metrics]:
    """One row a level, class and size: share of the class's pixels, recall and precision."""
    rows = []
    for level, found in findings.found.items():
        named = findings.named[level]
        for place, name in enumerate(classes):
            for row, size in enumerate(SIZES):
                (pixels, hit), (said, right) = found[row, place], named[row, place]
                rows.append(
                    {
                        "level": level,
                        "class": name,
                        "object size": size,
                        "share of class": pixels / (found[:, place, 0].sum() or np.nan),
                        "recall": hit / (pixels or np.nan),
                        "precision": right / (said or np.nan),
                    }
                )
    return rows


def bound_rows(findings: Findings, classes: Sequence[str]) -> list[Metrics]:
    """One row a level and bound: mIoU and the IoU of each class."""
    return [
        {"level": level, "bound": bound, "mIoU": mean_iou(matrix)}
        | dict(zip(classes, iou(matrix).tolist(), strict=True))
        for (level, bound), matrix in findings.matrices.items()
    ]


def removed_rows(findings: Findings, level: str, classes: Sequence[str]) -> list[Metrics]:
    """The confusions that image-level labels remove, the largest first, as shares of all pixels."""
    without = findings.matrices[level, NO_LABELS]
    labelled = findings.matrices[level, AS_IT_IS]
    total = without.sum()
    rows = [
        {
            "mask": classes[row],
            "taken for": classes[column],
            "without labels": without[row, column] / total,
            "with labels": labelled[row, column] / total,
        }
        for row, column in np.ndindex(without.shape)
        if row != column
    ]
    return sorted(rows, key=lambda row: row["with labels"] - row["without labels"])
