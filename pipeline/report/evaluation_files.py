"""Files of the stage `eval`: metrics as JSON, tables, charts and panels."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.config.eval import EvalParams, EvaluationSettings
from pipeline.datasets import open_dataset
from pipeline.datasets.base import Dataset, Scene
from pipeline.evaluation.segmenter import (
    SEGMENTER,
    Metrics,
    SegmenterScore,
    metrics_of,
    per_class_rows,
    protocol,
    region_class_rows,
)
from pipeline.evaluation.selection import (
    annotated,
    inference_options,
    listed,
    scenes_of,
    warn_unseen_classes,
    with_logits,
)
from pipeline.metrics import iou
from pipeline.report.charts import confusion_chart, iou_bars
from pipeline.report.drawing import palette_of, save_png
from pipeline.report.fonts import use_font
from pipeline.report.panels import PANELS, evenly_spaced
from pipeline.report.segmenter_panels import (
    PanelInputs,
    preview_panel,
    ranked,
    segmenter_panels,
)
from pipeline.report.snapshot_files import evaluated_network, write_scores
from pipeline.scenes.image_labels import read_image_labels
from pipeline.segmenter.saved import load_segmenter
from pipeline.store.checks import check_photos
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.files import atomic_path, file_digest, write_json, write_table
from pipeline.system.text import without_folders

log = logging.getLogger("carb")
RANKED = 3  # images per panel of the best, median and worst


def evaluate_data_set(
    model: Path,
    settings: EvaluationSettings,
    store: Path,
    image_labels: Path,
    previews: Path | None,
    *,
    out: Path,
    summary: Path,
) -> None:
    """Evaluate a segmenter on the validation images of the data set; see `write_segmenter_report`.

    Args:
        model: folder of the segmenter.
        settings: sections of params.yaml.
        store: folder of the pseudo-masks.
        image_labels: file of image-level labels.
        previews: folder of the previews that training left, or None.
        out: folder to write.
        summary: file of the main metrics, for DVC.

    Raises:
        ValueError: an input is damaged, or the segmenter has classes of another data set.
    """
    segmenter = load_segmenter(model)
    name, classes = settings.dataset.name, segmenter.classes
    dataset = open_dataset(name, settings.dataset.root)
    if classes != dataset.label_space.names:
        raise ValueError(
            f"the segmenter's {len(classes)} classes are not those of '{name}' "
            "(params.yaml: dataset.name); run `dvc repro train`"
        )
    labels = read_image_labels(image_labels, classes)
    use_font(settings.pictures.font, [*classes, *labels])
    inputs = PanelInputs(
        segmenter=segmenter,
        test_time=inference_options(settings.eval),
        store=PseudoMaskStore.open(store),
        labels=labels,
        read_mask=dataset.read_mask,
        palette=palette_of(settings.pictures.palette, dataset.label_space.palette),
    )
    write_segmenter_report(
        inputs, dataset, settings.eval, model=model, out=out, summary=summary, previews=previews
    )


def write_segmenter_report(
    inputs: PanelInputs,
    dataset: Dataset,
    options: EvalParams,
    *,
    model: Path,
    out: Path,
    summary: Path,
    previews: Path | None,
) -> None:
    """Write metrics, tables and panels of the segmenter on the validation images.

    ``metrics.json`` in ``out`` contains everything, ``summary`` the metrics by which `dvc metrics
    show` and `dvc exp show` compare runs. Without human masks there are panels only.

    Args:
        inputs: segmenter, store, labels and what else the panels are made from.
        dataset: the data set.
        options: section ``eval`` of params.yaml.
        model: folder of the segmenter and its snapshots.
        out: folder to write.
        summary: file of the main metrics, for DVC.
        previews: folder of the previews that training left, or None.

    Raises:
        ValueError: an input is damaged, or does not belong to the store.
    """
    val = scenes_of(dataset, "val")
    photos = val or dataset.scenes("train")
    scenes = annotated(val) if options.photos is None else listed(val, Path(options.photos))
    with_logits([scene for scene in scenes if scene.key in inputs.labels], inputs.store)
    with atomic_path(out) as draft:
        draft.mkdir()
        if previews is not None:
            used = [*scenes_of(dataset, "train"), *val]
            if (panel := preview_panel(previews, used, inputs.palette)) is not None:
                save_png(draft / "training_previews.png", panel)
        inputs, about = evaluated_network(draft, model, scenes, inputs, options)
        if scenes:
            name = dataset.label_space.name
            data = f"{name}, {without_folders(options.photos or 'val')}"
            main = _score_and_draw(draft, scenes, inputs, data, about)
        else:
            log.warning("%s: no validation photo has a human mask; nothing is scored", dataset.root)
            few = [replace(scene, mask=None) for scene in evenly_spaced(photos, PANELS)]
            panel = segmenter_panels(
                few, inputs, heading="Images without human masks", photo_iou={}
            )
            save_png(draft / "panels.png", panel)
            main = {}
    write_json(summary, main)


def _score_and_draw(
    folder: Path, scenes: Sequence[Scene], inputs: PanelInputs, data: str, about: Metrics
) -> Metrics:
    """Score images with human masks, write everything below ``folder``, return the main
    metrics; ``about`` is of the choice among snapshots, see `evaluated_network`."""
    classes = inputs.segmenter.classes
    labelled = [scene for scene in scenes if scene.key in inputs.labels]
    check_photos(inputs.store, {scene.key: file_digest(scene.image) for scene in labelled})
    score = inputs.score(scenes)
    total = sum(region.pixels for region in score.regions.values())
    metrics = {
        **metrics_of(score.confusion, classes),
        "regions": {name: region.metrics(total) for name, region in score.regions.items()},
        "protocol": protocol(inputs.segmenter, scenes, data, inputs.test_time),
    }
    main = {name: metrics[name] for name in ("mIoU", "pixel accuracy", "regions")}
    if about:
        metrics["protocol"]["network"] = about.pop("choice")
        metrics["network"] = about
        main |= {name: about[name] for name in ("weights", "step")}
    else:  # a table of one row: `dvc plots show` warns of a missing one
        write_scores(folder, {inputs.segmenter.extra.get("steps", 0): metrics["mIoU"]})
    write_json(folder / "metrics.json", metrics)
    write_table(folder / "per_class.csv", per_class_rows(score.confusion, classes))
    write_table(folder / "regions.csv", _region_rows(metrics["regions"]))
    write_table(folder / "regions_by_class.csv", region_class_rows(score, classes))
    _draw_charts(folder, score, classes)
    # The ranked images are predicted again, so that memory does not grow with their number.
    for name, few in ranked(scenes, score.photo_iou, RANKED).items():
        heading = f"Images with {name} mIoU, {len(few)} of {len(scenes)}"
        panel = segmenter_panels(few, inputs, heading=heading, photo_iou=score.photo_iou)
        save_png(folder / f"panels_{name}.png", panel)
    warn_unseen_classes(score.confusion, classes)
    log.info(
        "segmenter on %d photos: mIoU %.1f, pixel accuracy %.1f",
        *(len(scenes), 100 * metrics["mIoU"], 100 * metrics["pixel accuracy"]),
    )
    return main


def _draw_charts(folder: Path, score: SegmenterScore, classes: Sequence[str]) -> None:
    """Confusion matrix; IoU of the segmenter next to the pseudo-masks."""
    confusion_chart(score.confusion, classes, folder / "confusion.png")
    bars = {
        f"CLIP with image-level labels, {name}": iou(matrix)
        for name, matrix in score.per_level.items()
        if name != SEGMENTER
    }
    own = {"segmenter, no image-level labels": iou(score.per_level[SEGMENTER])}
    iou_bars(own | bars, classes, folder / "iou.png")


def _region_rows(regions: Metrics) -> list[Metrics]:
    """One row per region and network, for a bar chart."""
    return [
        {"region": f"{who.removesuffix(' accuracy')}, {name}", "accuracy": value}
        for name, metrics in regions.items()
        for who, value in metrics.items()
        if who != "share"
    ]
