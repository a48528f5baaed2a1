"""Pseudo-mask evaluation: confusion matrix per level, and accuracy where the levels agree."""

from collections.abc import Sequence

import numpy as np
import torch

from pipeline.datasets.base import MaskReader, Scene, read_scene_mask
from pipeline.evaluation.segmenter import Metrics, RegionScore
from pipeline.metrics import confusion
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.scenes.image_labels import ImageLabels
from pipeline.store.reader import PseudoMaskStore, hard_mask
from pipeline.system.progress import progress

RELABELLED = "relabelled"  # beside the levels of a store


def score_store(
    store: PseudoMaskStore,
    scenes: Sequence[Scene],
    labels: ImageLabels,
    *,
    read_mask: MaskReader,
    new: PseudoMaskStore | None = None,
) -> tuple[dict[str, np.ndarray], Metrics]:
    """Score the pseudo-masks of every level, given image-level labels.

    Args:
        store: the pseudo-masks.
        scenes: images with human masks.
        labels: image-level labels; images without are left out.
        read_mask: reads the data set's masks.
        new: labels of stage `relabel`, scored as level ``relabelled`` where it has the image.

    Returns:
        a confusion matrix ``[C, C]`` int64 per level; and for the pixels where the unfused levels
        agree, and for those where they differ, their share and the accuracy of the global and the
        last unfused level.
    """
    count = len(store.classes)
    matrices = {level: np.zeros((count, count), dtype=np.int64) for level in store.levels}
    last = [store.levels[0], *store.local_levels][-1]
    names = (f"{store.levels[0]} accuracy", f"{last} accuracy")
    known = set() if new is None else set(new.keys)
    if known:
        matrices[RELABELLED] = np.zeros((count, count), dtype=np.int64)
    agree, differ = RegionScore(count, names), RegionScore(count, names)
    for scene in progress(scenes, label="evaluate", total=len(scenes)):
        if scene.key not in labels:
            continue
        mask = read_scene_mask(scene, read_mask)
        size, present = (mask.shape[0], mask.shape[1]), torch.from_numpy(labels[scene.key])
        maps: dict[str, np.ndarray] = {}
        for level in store.levels:
            grid = torch.from_numpy(store.read(scene.key, level))
            maps[level] = hard_mask(grid, present, size).numpy()
            matrices[level] = matrices[level] + confusion(maps[level], mask, count)
        if new is not None and scene.key in known:
            grid = torch.from_numpy(new.read(scene.key, new.levels[0]))
            found = hard_mask(grid, present, size).numpy()
            matrices[RELABELLED] = matrices[RELABELLED] + confusion(found, mask, count)
        first = maps[store.levels[0]]
        same = np.all([maps[level] == first for level in store.local_levels], axis=0)
        valid = mask != IGNORE_INDEX
        for score, region in ((agree, same), (differ, ~same)):
            score.add(region & valid, first, maps[last], mask)
    total = agree.pixels + differ.pixels
    scores = {"levels agree": agree, "levels differ": differ}
    return matrices, {name: score.metrics(total) for name, score in scores.items()}
