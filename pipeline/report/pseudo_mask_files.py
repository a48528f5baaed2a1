"""Files of the stage `eval_pseudo`: metrics as JSON, charts and panels of the pseudo-masks.

Apart from those of `eval`, because the libraries of networks take seconds to import.
"""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.config.eval import PaletteName
from pipeline.datasets.base import Dataset, Scene
from pipeline.evaluation.pseudo_masks import RELABELLED, score_store
from pipeline.evaluation.segmenter import Metrics, metrics_of
from pipeline.evaluation.selection import pseudo_scenes, scenes_of, warn_unseen_classes
from pipeline.metrics import iou
from pipeline.report.charts import iou_bars
from pipeline.report.drawing import palette_of, save_png
from pipeline.report.panels import PANELS, evenly_spaced
from pipeline.report.pseudo_mask_panels import pseudo_panels
from pipeline.scenes.image_labels import ImageLabels
from pipeline.store.checks import check_photos
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.files import atomic_path, file_digest, write_json

log = logging.getLogger("carb")


def write_pseudo_report(
    store: PseudoMaskStore,
    labels: ImageLabels,
    dataset: Dataset,
    *,
    photos: str | None,
    palette: PaletteName,
    out: Path,
    summary: Path,
    new: PseudoMaskStore | None = None,
) -> None:
    """Write metrics and panels of the pseudo-masks, by split and level.

    Without human masks there are panels only. ``panels_unlabelled.png`` shows CLIP's masks of
    training images without image-level labels.

    Args:
        store: the pseudo-masks.
        labels: image-level labels.
        dataset: the data set.
        photos: ``eval.photos``.
        palette: ``pictures.palette``.
        out: folder to write.
        summary: file of the main metrics, for DVC.
        new: labels of stage `relabel`, scored as level ``relabelled``; None: there are none.
    """
    metrics: Metrics = {}
    colours = palette_of(palette, dataset.label_space.palette)
    with atomic_path(out) as draft:
        draft.mkdir()
        keys = set(store.keys)
        if train := [scene for scene in scenes_of(dataset, "train") if scene.key in keys]:
            few = evenly_spaced(train, PANELS)
            few = [replace(scene, mask=None) for scene in few]
            panel = pseudo_panels(
                few, store, palette=colours, labels=None, read_mask=dataset.read_mask
            )
            save_png(draft / "panels_unlabelled.png", panel)
        for split in ("train", "val"):
            scenes, labelled = pseudo_scenes(store, labels, dataset, split, photos)
            if labelled:
                panel = pseudo_panels(
                    evenly_spaced(scenes or labelled, PANELS),
                    store,
                    palette=colours,
                    labels=labels,
                    read_mask=dataset.read_mask,
                )
                save_png(draft / f"panels_{split}.png", panel)
            if scenes:
                of_split = new if split == "train" else None
                metrics[split] = _scored_split(
                    split, scenes, store, labels, dataset, draft, of_split
                )
            else:
                log.info("%s: no photo has both a human mask and image-level labels", split)
        write_json(draft / "metrics.json", metrics)
    main = {f"pseudo-masks {split}": _level_miou(found) for split, found in metrics.items()}
    write_json(summary, main)


def _scored_split(
    split: str,
    scenes: Sequence[Scene],
    store: PseudoMaskStore,
    labels: ImageLabels,
    dataset: Dataset,
    folder: Path,
    new: PseudoMaskStore | None,
) -> Metrics:
    """Score the pseudo-masks of a split, draw ``iou_<split>.png``, and return the metrics."""
    check_photos(store, {scene.key: file_digest(scene.image) for scene in scenes})
    matrices, regions = score_store(store, scenes, labels, read_mask=dataset.read_mask, new=new)
    warn_unseen_classes(next(iter(matrices.values())), store.classes)
    bars = {_title(name): iou(matrix) for name, matrix in matrices.items()}
    iou_bars(bars, store.classes, folder / f"iou_{split}.png")
    levels = {name: metrics_of(matrix, store.classes) for name, matrix in matrices.items()}
    for name, one in levels.items():
        log.info("%s pseudo-masks, %s: mIoU %.1f", split, name, 100 * one["mIoU"])
    return {**levels, "regions": regions}


def _title(level: str) -> str:
    return level if level == RELABELLED else f"CLIP, {level}"


def _level_miou(metrics: Metrics) -> Metrics:
    return {level: one["mIoU"] for level, one in metrics.items() if "mIoU" in one}
