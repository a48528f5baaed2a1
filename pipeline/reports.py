"""What evaluation leaves to read and to look at: figures, tables, panels."""

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.config import EvalParams, load_params
from pipeline.datasets import open_dataset
from pipeline.evaluation import (
    Figures,
    figures_of,
    per_class_rows,
    protocol,
    pseudo_mask_pictures,
    region_class_rows,
    score_segmenter,
    score_store,
)
from pipeline.files import atomic_path, write_json
from pipeline.image_labels import read_scene_mask
from pipeline.inference import Presentation, Segmenter, predict_mask
from pipeline.label_files import ImageLabels, read_label_file
from pipeline.scene import Dataset, MaskReader, Scene, read_image
from pipeline.store import PseudoMaskStore
from pipeline.tables import write_table
from pipeline.visualise import (
    colour_mask,
    confusion_figure,
    iou_bars,
    panel,
    save_png,
)
from pipeline.wording import shown

log = logging.getLogger("carb")
PANELS = 6


def presentation_of(params: EvalParams) -> Presentation:
    """How params.yaml wants photos to be shown."""
    return Presentation(tuple(params.scales), params.flip, params.window, params.edge_radius)


def spread(items: Sequence[Scene], count: int) -> list[Scene]:
    """A few items, evenly spread over all."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def scenes_of(dataset: Dataset, split: str) -> list[Scene]:
    """Photos of a split; none where the data set has no such split."""
    return dataset.scenes(split) if split in dataset.splits else []


def listed(scenes: Sequence[Scene], path: Path) -> list[Scene]:
    """Those photos that a file names, one key a line.

    Raises:
        ValueError: the file is missing, empty or names a photo that is not there.
    """
    if not path.is_file():
        raise ValueError(f"params.yaml: eval.photos: {path}: no such file; name one key a line")
    lines = path.read_text("utf-8", errors="replace").splitlines()
    wanted = [line.strip() for line in lines if line.strip()]
    known = {scene.key: scene for scene in scenes}
    strange = [key for key in wanted if key not in known]
    if strange or not wanted:
        found = f"{shown(strange[0])} is none" if strange else "it is empty"
        raise ValueError(
            f"{path} (params.yaml: eval.photos): must hold keys of validation photos with human "
            f"masks, one a line, such as '{next(iter(known), '')}'; {found}"
        )
    return [known[key] for key in dict.fromkeys(wanted)]


def annotated(scenes: Sequence[Scene]) -> list[Scene]:
    """Those photos that have human masks."""
    return [scene for scene in scenes if scene.mask is not None]


def pseudo_report(
    store: PseudoMaskStore,
    labels: ImageLabels,
    dataset: Dataset,
    *,
    photos: str | None,
    out: Path,
    summary: Path,
) -> None:
    """Figures and pictures of the pseudo-masks, by split and level; the main ones once more.

    ``photos`` is what ``eval.photos`` says of the validation photos.
    """
    figures: Figures = {}
    with atomic_path(out) as draft:
        draft.mkdir()
        for split in ("train", "val"):
            labelled = [scene for scene in scenes_of(dataset, split) if scene.key in labels]
            scenes = annotated(labelled)
            if photos is not None and split == "val":
                scenes = listed(scenes, Path(photos))
            if labelled:
                shown = scenes or labelled
                _pseudo_panels(draft / f"panels_{split}.png", shown, store, labels, dataset)
            if not scenes:
                log.info("%s: no photo with both a human mask and image-level labels", split)
                continue
            matrices, regions = score_store(store, scenes, labels, read_mask=dataset.read_mask)
            levels = {name: figures_of(m, store.classes) for name, m in matrices.items()}
            figures[split] = {**levels, "regions": regions}
            bars = {name: np.array(list(f["IoU"].values())) for name, f in levels.items()}
            iou_bars(bars, store.classes, draft / f"iou_{split}.png")
            for name, one in levels.items():
                log.info("%s pseudo-masks, %s: mIoU %.1f", split, name, 100 * one["mIoU"])
        write_json(draft / "metrics.json", figures)
    main = {f"pseudo-masks {split}": _level_miou(found) for split, found in figures.items()}
    write_json(summary, main)


def _pseudo_panels(
    path: Path,
    scenes: Sequence[Scene],
    store: PseudoMaskStore,
    labels: ImageLabels,
    dataset: Dataset,
) -> None:
    """Photo, pseudo-mask of each level and human mask, if there is one, of a few photos."""
    palette, rows = dataset.label_space.palette, []
    for scene in spread(scenes, PANELS):
        image = read_image(scene.image)
        masks = pseudo_mask_pictures(scene, store, labels, (image.height, image.width))
        masks += _human_mask(scene, dataset.read_mask)
        rows.append([np.asarray(image), *(colour_mask(one, palette) for one in masks)])
    titles = ["photo", *(f"CLIP, {level}" for level in store.levels), "human mask"]
    sheet = panel(rows, titles=titles[: len(rows[0])], names=store.classes, palette=palette)
    save_png(path, sheet)


def _human_mask(scene: Scene, read_mask: MaskReader) -> list[np.ndarray]:
    """The human mask, or nothing."""
    return [] if scene.mask is None else [read_scene_mask(scene, read_mask)]


def _level_miou(figures: Figures) -> Figures:
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
    named, presentation = settings.dataset, presentation_of(settings.eval)
    dataset, classes = open_dataset(named.name, named.root), segmenter.classes
    if classes != dataset.label_space.names:
        raise ValueError(
            f"the segmenter knows {len(classes)} classes that are not those of "
            f"'{named.name}' ({params.name}: dataset.name); run `dvc repro train`"
        )
    masks, labels = PseudoMaskStore.open(store), read_label_file(image_labels, classes)
    photos = scenes_of(dataset, "val") or dataset.scenes("train")
    scenes = annotated(photos) if "val" in dataset.splits else []
    if settings.eval.photos is not None:
        scenes = listed(scenes, Path(settings.eval.photos))
    if not scenes:
        log.warning("%s: no validation photo has a human mask; nothing is scored", dataset.root)
        bare = [replace(scene, mask=None) for scene in photos]
        with atomic_path(out) as draft:
            draft.mkdir()
            few = spread(bare, PANELS)
            sheet = segmenter_panels(segmenter, few, masks, labels, dataset, presentation)
            save_png(draft / "panels.png", sheet)
        write_json(summary, {})
        return
    score = score_segmenter(
        segmenter,
        scenes,
        read_mask=dataset.read_mask,
        store=masks,
        labels=labels,
        presentation=presentation,
    )
    total = sum(region.pixels for region in score.regions.values())
    figures = {
        **figures_of(score.confusion, classes),
        "regions": {name: region.figures(total) for name, region in score.regions.items()},
        "protocol": protocol(
            segmenter, scenes, f"{named.name}, {settings.eval.photos or 'val'}", presentation
        ),
    }
    with atomic_path(out) as draft:
        draft.mkdir()
        write_table(draft / "per_class.csv", per_class_rows(score.confusion, classes))
        write_table(draft / "regions.csv", _region_rows(figures["regions"]))
        write_table(draft / "regions_by_class.csv", region_class_rows(score, classes))
        confusion_figure(score.confusion, classes, draft / "confusion.png")
        few = spread(scenes, PANELS)
        sheet = segmenter_panels(segmenter, few, masks, labels, dataset, presentation)
        save_png(draft / "panels.png", sheet)
        write_json(draft / "metrics.json", figures)
    main = {name: figures[name] for name in ("mIoU", "pixel accuracy", "regions")}
    write_json(summary, main)
    log.info(
        "segmenter on %d photos: mIoU %.1f, pixel accuracy %.1f",
        len(scenes),
        100 * figures["mIoU"],
        100 * figures["pixel accuracy"],
    )


def _region_rows(regions: Figures) -> list[Figures]:
    """One row a region and network, for a bar chart."""
    return [
        {"region": f"{who.removesuffix(' accuracy')}, {name}", "accuracy": value}
        for name, figures in regions.items()
        for who, value in figures.items()
        if who != "share"
    ]


def segmenter_panels(
    segmenter: Segmenter,
    scenes: Sequence[Scene],
    store: PseudoMaskStore,
    labels: ImageLabels,
    dataset: Dataset,
    presentation: Presentation,
) -> Image.Image:
    """Photo, pseudo-masks, prediction and human mask, if there is one: a row a photo."""
    rows = []
    for scene in scenes:
        image = read_image(scene.image)
        size = (image.height, image.width)
        masks = [
            *pseudo_mask_pictures(scene, store, labels, size),
            predict_mask(segmenter, image, size, presentation),
            *_human_mask(scene, dataset.read_mask),
        ]
        rows.append([np.asarray(image), *(colour_mask(one, segmenter.palette) for one in masks)])
    titles = ["photo", *(f"CLIP, {level}" for level in store.levels), "segmenter", "human mask"]
    names, palette = segmenter.classes, segmenter.palette
    return panel(rows, titles=titles[: len(rows[0])], names=names, palette=palette)
