"""What evaluation leaves to read and to look at: figures, tables, panels."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from pipeline.config.params import EvalParams, PaletteName, Params, load_params
from pipeline.config.watched_files import watch
from pipeline.datasets import open_dataset
from pipeline.datasets.base import Dataset, Scene, read_scene_mask
from pipeline.evaluation.photos import (
    annotated,
    listed,
    pseudo_scenes,
    scenes_of,
    tell_of_unseen,
    with_logits,
)
from pipeline.evaluation.scores import (
    SEGMENTER,
    Metrics,
    SegmenterScore,
    metrics_of,
    per_class_rows,
    protocol,
    region_class_rows,
    score_segmenter,
    score_store,
)
from pipeline.metrics import iou
from pipeline.report.drawing import confusion_figure, iou_bars, save_png
from pipeline.report.fonts import use_font
from pipeline.report.palettes import palette_of
from pipeline.report.pseudo_mask_panels import evenly_spaced, pseudo_panels
from pipeline.report.segmenter_panels import PanelInputs, ranked, segmenter_panels
from pipeline.scenes.image_labels import ImageLabels, read_image_labels
from pipeline.segmenter.inference import Segmenter, TestTimeOptions
from pipeline.store.masks import check_photos
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.files import atomic_path, file_digest, write_json
from pipeline.system.tables import write_table
from pipeline.system.text import without_folders

log = logging.getLogger("carb")
PANELS = 4  # photos of a sheet
RANKED = 3  # photos of the sheets of best, median and worst


def presentation_of(params: EvalParams) -> TestTimeOptions:
    """How params.yaml wants photos to be shown."""
    return TestTimeOptions(tuple(params.scales), params.flip, params.window, params.edge_radius)


def pseudo_report(
    store: PseudoMaskStore,
    labels: ImageLabels,
    dataset: Dataset,
    *,
    photos: str | None,
    palette: PaletteName,
    out: Path,
    summary: Path,
) -> None:
    """Figures and pictures of the pseudo-masks, by split and level; the main ones once more.

    ``photos`` is what ``eval.photos`` says of the validation photos, ``palette`` what
    ``pictures.palette`` says.
    """
    figures: Metrics = {}
    with atomic_path(out) as draft:
        draft.mkdir()
        for split in ("train", "val"):
            scenes, labelled = pseudo_scenes(store, labels, dataset, split, photos)
            if labelled:
                sheet = pseudo_panels(
                    evenly_spaced(scenes or labelled, PANELS),
                    store,
                    palette=palette_of(palette, dataset.label_space.palette),
                    labels=labels,
                    human_mask=lambda scene: _human_mask(scene, dataset),
                )
                save_png(draft / f"panels_{split}.png", sheet)
            if not scenes:
                log.info("%s: no photo with both a human mask and image-level labels", split)
                continue
            check_photos(store, {scene.key: file_digest(scene.image) for scene in scenes})
            matrices, regions = score_store(store, scenes, labels, read_mask=dataset.read_mask)
            levels = {name: metrics_of(m, store.classes) for name, m in matrices.items()}
            figures[split] = {**levels, "regions": regions}
            tell_of_unseen(next(iter(matrices.values())), store.classes)
            bars = {f"CLIP, {name}": iou(matrix) for name, matrix in matrices.items()}
            iou_bars(bars, store.classes, draft / f"iou_{split}.png")
            for name, one in levels.items():
                log.info("%s pseudo-masks, %s: mIoU %.1f", split, name, 100 * one["mIoU"])
        write_json(draft / "metrics.json", figures)
    main = {f"pseudo-masks {split}": _level_miou(found) for split, found in figures.items()}
    write_json(summary, main)


def _human_mask(scene: Scene, dataset: Dataset) -> np.ndarray | None:
    return None if scene.mask is None else read_scene_mask(scene, dataset.read_mask)


def _level_miou(figures: Metrics) -> Metrics:
    return {level: one["mIoU"] for level, one in figures.items() if "mIoU" in one}


def segmenter_report(
    segmenter: Segmenter,
    *,
    store: Path,
    image_labels: Path,
    params: Path,
    out: Path,
    summary: Path,
) -> None:
    """Figures, tables and pictures of the segmenter on the validation photos.

    ``metrics.json`` in ``out`` holds everything; ``summary`` the few figures that runs are compared
    by, for `dvc metrics show` and `dvc exp show`. Without human masks there are only pictures.

    Raises:
        ValueError: an input is missing or made for other classes.
    """
    settings = load_params(params)
    named, classes = settings.dataset, segmenter.classes
    dataset = open_dataset(named.name, named.root)
    if classes != dataset.label_space.names:
        raise ValueError(
            f"the segmenter knows {len(classes)} classes that are not those of "
            f"'{named.name}' ({params.name}: dataset.name); run `dvc repro train`"
        )
    labels = read_image_labels(image_labels, classes)
    use_font(settings.pictures.font, [*classes, *labels])
    sources = PanelInputs(
        segmenter=segmenter,
        presentation=presentation_of(settings.eval),
        store=PseudoMaskStore.open(store),
        labels=labels,
        read_mask=dataset.read_mask,
        palette=palette_of(settings.pictures.palette, dataset.label_space.palette),
    )
    photos = scenes_of(dataset, "val") or dataset.scenes("train")
    scenes = annotated(photos) if "val" in dataset.splits else []
    if settings.eval.photos is not None:
        scenes = listed(scenes_of(dataset, "val"), Path(settings.eval.photos))
    with_logits([scene for scene in scenes if scene.key in sources.labels], sources.store)
    if scenes:
        _scored_report(scenes, sources, settings, out=out, summary=summary)
        watch("eval", settings, params)
        return
    log.warning("%s: no validation photo has a human mask; nothing is scored", dataset.root)
    few = [replace(scene, mask=None) for scene in evenly_spaced(photos, PANELS)]
    sheet = segmenter_panels(few, sources, heading="Photos without human masks", photo_iou={})
    with atomic_path(out) as draft:
        draft.mkdir()
        save_png(draft / "panels.png", sheet)
    write_json(summary, {})
    watch("eval", settings, params)


def _scored_report(
    scenes: Sequence[Scene], sources: PanelInputs, settings: Params, *, out: Path, summary: Path
) -> None:
    """Score photos with human masks; write what `segmenter_report` promises."""
    segmenter = sources.segmenter
    beside = [scene for scene in scenes if scene.key in sources.labels]
    check_photos(sources.store, {scene.key: file_digest(scene.image) for scene in beside})
    score = score_segmenter(
        segmenter,
        scenes,
        read_mask=sources.read_mask,
        store=sources.store,
        labels=sources.labels,
        presentation=sources.presentation,
    )
    total = sum(region.pixels for region in score.regions.values())
    data = f"{settings.dataset.name}, {without_folders(settings.eval.photos or 'val')}"
    figures = {
        **metrics_of(score.confusion, segmenter.classes),
        "regions": {name: region.figures(total) for name, region in score.regions.items()},
        "protocol": protocol(segmenter, scenes, data, sources.presentation),
    }
    with atomic_path(out) as draft:
        draft.mkdir()
        write_json(draft / "metrics.json", figures)
        _write_tables(draft, score, figures, segmenter.classes)
        _draw_charts(draft, score, segmenter.classes)
        _draw_panels(draft, scenes, score, sources)
    write_json(summary, {name: figures[name] for name in ("mIoU", "pixel accuracy", "regions")})
    tell_of_unseen(score.confusion, segmenter.classes)
    log.info(
        "segmenter on %d photos: mIoU %.1f, pixel accuracy %.1f",
        len(scenes),
        100 * figures["mIoU"],
        100 * figures["pixel accuracy"],
    )


def _write_tables(
    folder: Path, score: SegmenterScore, figures: Metrics, classes: Sequence[str]
) -> None:
    write_table(folder / "per_class.csv", per_class_rows(score.confusion, classes))
    write_table(folder / "regions.csv", _region_rows(figures["regions"]))
    write_table(folder / "regions_by_class.csv", region_class_rows(score, classes))


def _draw_charts(folder: Path, score: SegmenterScore, classes: Sequence[str]) -> None:
    """Where pixels went, and the segmenter beside the pseudo-masks that it learned from."""
    confusion_figure(score.confusion, classes, folder / "confusion.png")
    bars = {
        "segmenter, shown no image labels": iou(score.beside[SEGMENTER]),
        **{
            f"CLIP with image labels, {name}": iou(matrix)
            for name, matrix in score.beside.items()
            if name != SEGMENTER
        },
    }
    iou_bars(bars, classes, folder / "iou.png")


def _draw_panels(
    folder: Path, scenes: Sequence[Scene], score: SegmenterScore, sources: PanelInputs
) -> None:
    """The photos that went best, middling and worst; they are predicted once more, so that memory
    does not grow with the photos."""
    for name, few in ranked(scenes, score.photo_iou, RANKED).items():
        heading = f"The {name} of {len(scenes)} photos, by their own mIoU"
        sheet = segmenter_panels(few, sources, heading=heading, photo_iou=score.photo_iou)
        save_png(folder / f"panels_{name}.png", sheet)


def _region_rows(regions: Metrics) -> list[Metrics]:
    """One row a region and network, for a bar chart."""
    return [
        {"region": f"{who.removesuffix(' accuracy')}, {name}", "accuracy": value}
        for name, figures in regions.items()
        for who, value in figures.items()
        if who != "share"
    ]
