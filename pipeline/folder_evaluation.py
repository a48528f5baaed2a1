"""Score or predict a plain folder of photos with a trained segmenter."""

import logging
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.datasets import ADAPTERS
from pipeline.datasets.folder import photos_below
from pipeline.evaluation import figures_of, per_class_rows, protocol, score_segmenter
from pipeline.inference import Presentation, predict_mask
from pipeline.runtime import atomic_path, progress, write_json
from pipeline.scene import PHOTO_ENDINGS, MaskReader, Scene, index_table, read_ids, read_image
from pipeline.segmenter import Segmenter
from pipeline.submission import TEST_PHOTOS, label_ids, submission_names
from pipeline.tables import write_table
from pipeline.visualise import confusion_figure, overlay, save_png

log = logging.getLogger("carb")


def folder_scenes(images: Path, masks: Path | None, *, out: Path) -> list[Scene]:
    """The photos of a folder and those below it, with the masks of the same names.

    Args:
        images: folder of photos.
        masks: folder of masks, or None; what lies in it is no photo.
        out: folder of an earlier output; what lies in it is no photo either.

    Raises:
        ValueError: no such folder, no photo in it, two of one name, or a photo has no mask.
    """
    for folder, option in ((images, "--images"), (masks, "--masks")):
        if folder is not None and not folder.is_dir():
            raise ValueError(f"{option} {folder}: no such folder; give the folder that holds them")
    others = [folder.resolve() for folder in (masks, out) if folder is not None]
    inside = [folder for folder in others if not images.resolve().is_relative_to(folder)]
    scenes = []
    for key, photo in photos_below(images).items():
        if any(photo.resolve().is_relative_to(folder) for folder in inside):
            continue
        mask = None if masks is None else masks / f"{key}.png"
        if mask is not None and not mask.is_file():
            raise ValueError(f"--masks {masks}: has no {key}.png for {photo.name}; add it")
        scenes.append(Scene(photo, mask, "folder", key))
    if not scenes:
        raise ValueError(f"--images {images}: holds no photo ({', '.join(PHOTO_ENDINGS)})")
    return scenes


def mask_reader(segmenter: Segmenter, masks: Path) -> MaskReader:
    """How mask files count the classes: as the segmenter's data set does, else by class index."""
    dataset = str(segmenter.extra.get("dataset"))
    if dataset in ADAPTERS and dataset != "folder":
        return ADAPTERS[dataset](masks).read_mask
    return partial(read_ids, table=index_table(len(segmenter.classes)))


def evaluate_folder(
    segmenter: Segmenter,
    images: Path,
    masks: Path | None,
    *,
    out: Path,
    presentation: Presentation,
    submission: bool,
) -> None:
    """Write predictions and overlays of a folder of photos, and with masks their figures.

    Args:
        segmenter: the model.
        images: folder of photos, in any sub-folders.
        masks: folder of human masks of the same names (``.png``), or None.
        out: folder to write, an earlier output is replaced: ``masks/`` (palette PNGs of class
            indices), ``overlays/``, and with masks ``metrics.json``, ``per_class.csv``,
            ``confusion.png``.
        presentation: scales, flips and windows.
        submission: also write ``submission/``, as the Cityscapes server takes it.

    Raises:
        ValueError: a file is missing, unreadable or does not fit its photo; or ``out`` holds
            other files.
    """
    scenes = folder_scenes(images, masks, out=out)
    _check_out(out)
    names = submission_names(scenes) if submission else {}
    ids = label_ids(segmenter.classes) if submission else None
    with atomic_path(out) as draft:
        for scene in progress(scenes, label="predict", total=len(scenes)):
            image = read_image(scene.image)
            mask = predict_mask(segmenter, image, (image.height, image.width), presentation)
            picture = Image.fromarray(mask)
            picture.putpalette(segmenter.palette.tobytes())
            save_png(draft / "masks" / f"{scene.key}.png", picture)
            blended = overlay(np.asarray(image), mask, segmenter.palette, alpha=0.5)
            save_png(draft / "overlays" / f"{scene.key}.png", Image.fromarray(blended))
            if ids is not None:
                save_png(draft / "submission" / names[scene.key], Image.fromarray(ids[mask]))
        if masks is not None:
            _write_figures(draft, segmenter, scenes, masks, presentation)
    log.info("wrote %d predictions to %s", len(scenes), out)
    if submission and len(names) != TEST_PHOTOS:
        log.warning(
            "the server scores the %d photos of the test split together and refuses less; these "
            "are %d",
            TEST_PHOTOS,
            len(names),
        )


def _check_out(out: Path) -> None:
    """Refuse to replace anything but an earlier output: ``out`` is deleted with all it holds."""
    ours = {"masks", "overlays", "submission", "metrics.json", "per_class.csv", "confusion.png"}
    if out.exists() and not (out.is_dir() and {path.name for path in out.iterdir()} <= ours):
        raise ValueError(f"--out {out}: holds other files; give the name of a new folder")


def _write_figures(
    folder: Path, segmenter: Segmenter, scenes: list[Scene], masks: Path, presentation: Presentation
) -> None:
    read_mask = mask_reader(segmenter, masks)
    score = score_segmenter(
        segmenter, scenes, read_mask=read_mask, store=None, labels={}, presentation=presentation
    )
    figures = figures_of(score.confusion, segmenter.classes)
    made = protocol(segmenter, scenes, str(scenes[0].image.parent), presentation)
    write_json(folder / "metrics.json", {**figures, "protocol": made})
    write_table(folder / "per_class.csv", per_class_rows(score.confusion, segmenter.classes))
    confusion_figure(score.confusion, segmenter.classes, folder / "confusion.png")
    log.info("mIoU %.1f on %d photos", 100 * figures["mIoU"], len(scenes))
