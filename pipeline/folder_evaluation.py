"""Score or predict a plain folder of photos with a trained segmenter."""

import logging
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.datasets import ADAPTERS
from pipeline.evaluation import figures_of, per_class_rows, protocol, score_segmenter
from pipeline.inference import predict_mask
from pipeline.runtime import atomic_path, progress, write_json
from pipeline.scene import PHOTO_ENDINGS, MaskReader, Scene, index_table, read_ids, read_image
from pipeline.segmenter import Segmenter
from pipeline.tables import write_table
from pipeline.visualise import confusion_figure, overlay, save_png

log = logging.getLogger("carb")


def folder_scenes(images: Path, masks: Path | None) -> list[Scene]:
    """The photos of a folder, with the masks of the same names.

    Raises:
        ValueError: no such folder, no photo in it, or a photo has no mask.
    """
    for folder, option in ((images, "--images"), (masks, "--masks")):
        if folder is not None and not folder.is_dir():
            raise ValueError(f"{option} {folder}: no such folder; give the folder that holds them")
    files = sorted(path for path in images.iterdir() if path.suffix.lower() in PHOTO_ENDINGS)
    if not files:
        raise ValueError(f"--images {images}: holds no photo ({', '.join(PHOTO_ENDINGS)})")
    scenes = []
    for file in files:
        mask = None if masks is None else masks / f"{file.stem}.png"
        if mask is not None and not mask.is_file():
            raise ValueError(f"--masks {masks}: has no {mask.name} for {file.name}; add it")
        scenes.append(Scene(file, mask, "folder", file.stem))
    return scenes


def mask_reader(segmenter: Segmenter, masks: Path) -> MaskReader:
    """How mask files count the classes: as the segmenter's data set does, else by class index."""
    dataset = str(segmenter.extra.get("dataset"))
    if dataset in ADAPTERS and dataset != "folder":
        return ADAPTERS[dataset](masks).read_mask
    return partial(read_ids, table=index_table(len(segmenter.classes)))


def evaluate_folder(segmenter: Segmenter, images: Path, masks: Path | None, *, out: Path) -> None:
    """Write predictions and overlays of a folder of photos, and with masks their figures.

    Args:
        segmenter: the model.
        images: folder of photos.
        masks: folder of human masks of the same names (``.png``), or None.
        out: folder to write, an earlier output is replaced: ``masks/`` (palette PNGs of class
            indices), ``overlays/``, and with masks ``metrics.json``, ``per_class.csv``,
            ``confusion.png``.

    Raises:
        ValueError: a file is missing, unreadable or does not fit its photo; or ``out`` holds
            other files.
    """
    scenes = folder_scenes(images, masks)
    _check_out(out)
    with atomic_path(out) as draft:
        for name in ("masks", "overlays"):
            (draft / name).mkdir(parents=True)
        for scene in progress(scenes, label="predict", total=len(scenes)):
            image = read_image(scene.image)
            mask = predict_mask(segmenter, image, (image.height, image.width))
            picture = Image.fromarray(mask)
            picture.putpalette(segmenter.palette.tobytes())
            picture.save(draft / "masks" / f"{scene.key}.png")
            blended = overlay(np.asarray(image), mask, segmenter.palette, alpha=0.5)
            save_png(draft / "overlays" / f"{scene.key}.png", Image.fromarray(blended))
        if masks is not None:
            _write_figures(draft, segmenter, scenes, masks)
    log.info("wrote %d predictions to %s", len(scenes), out)


def _check_out(out: Path) -> None:
    """Refuse to replace anything but an earlier output: ``out`` is deleted with all it holds."""
    ours = {"masks", "overlays", "metrics.json", "per_class.csv", "confusion.png"}
    if out.exists() and not (out.is_dir() and {path.name for path in out.iterdir()} <= ours):
        raise ValueError(f"--out {out}: holds other files; give the name of a new folder")


def _write_figures(folder: Path, segmenter: Segmenter, scenes: list[Scene], masks: Path) -> None:
    read_mask = mask_reader(segmenter, masks)
    score = score_segmenter(segmenter, scenes, read_mask=read_mask, store=None, labels={})
    figures = figures_of(score.confusion, segmenter.classes)
    data = str(scenes[0].image.parent)
    write_json(folder / "metrics.json", {**figures, "protocol": protocol(segmenter, scenes, data)})
    write_table(folder / "per_class.csv", per_class_rows(score.confusion, segmenter.classes))
    confusion_figure(score.confusion, segmenter.classes, folder / "confusion.png")
    log.info("mIoU %.1f on %d photos", 100 * figures["mIoU"], len(scenes))
