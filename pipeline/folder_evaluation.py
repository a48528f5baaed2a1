"""Score or predict a plain folder of photos with a trained segmenter."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.evaluation import Figures, SegmenterScore, figures_of, per_class_rows, protocol
from pipeline.files import atomic_path, write_json
from pipeline.folder_answers import check_out, write_answers
from pipeline.image_labels import read_annotated
from pipeline.inference import Presentation, Segmenter
from pipeline.mask_ids import AUTO, find_masks, mask_reader
from pipeline.photo_files import left_over, look_below, tell_not_read
from pipeline.scene import PHOTO_ENDINGS, Scene, read_image
from pipeline.scored_photos import tell_of_unseen
from pipeline.submission import TEST_PHOTOS, label_ids, submission_names
from pipeline.tables import write_table
from pipeline.visualise import confusion_figure, save_png

log = logging.getLogger("carb")


def folder_scenes(images: Path, masks: Path | None, *, out: Path, ids: str = AUTO) -> list[Scene]:
    """The photos of a folder and those below it, with the masks of the same names.

    Args:
        images: folder of photos.
        masks: folder of masks, or None; what lies in it is no photo.
        out: folder of an earlier output; what lies in it is no photo either.
        ids: what the masks hold, see `find_masks`.

    Raises:
        ValueError: no such folder, no photo in it, two of one name, or a photo has no mask.
    """
    for folder, option in ((images, "--images"), (masks, "--masks")):
        if folder is not None and not folder.is_dir():
            raise ValueError(f"{option} {folder}: no such folder; give the folder that holds them")
    others = [folder.resolve() for folder in (masks, out) if folder is not None]
    inside = [folder for folder in others if not images.resolve().is_relative_to(folder)]
    below = look_below(images)
    photos = {
        key: photo
        for key, photo in below.photos.items()
        if not any(photo.resolve().is_relative_to(folder) for folder in inside)
    }
    if not photos:
        raise ValueError(f"--images {images}: holds no photo ({', '.join(PHOTO_ENDINGS)})")
    found = {} if masks is None else find_masks(photos, masks, ids)
    tell_not_read(images, below, set(), inside)
    if masks is not None:
        for line in left_over(masks, {*found.values(), *photos.values()}, "other files"):
            log.warning("%s", line)
    return [Scene(photo, found.get(key), "folder", key) for key, photo in photos.items()]


def evaluate_folder(
    segmenter: Segmenter,
    images: Path,
    masks: Path | None,
    *,
    out: Path,
    presentation: Presentation,
    submission: bool,
    mask_ids: str = AUTO,
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
        mask_ids: what the ids in the masks are, see `pipeline.mask_ids`.

    Raises:
        ValueError: a file is missing, unreadable or does not fit its photo; or ``out`` holds
            other files.
    """
    scenes = folder_scenes(images, masks, out=out, ids=mask_ids)
    check_out(out, {"--images": images} | ({"--masks": masks} if masks else {}))
    names = submission_names(scenes) if submission else {}
    ids = label_ids(segmenter.classes) if submission else None
    read = _reader(segmenter, scenes, masks, mask_ids)
    count = len(segmenter.classes)
    score = SegmenterScore(np.zeros((count, count), dtype=np.int64))
    with atomic_path(out) as draft:
        for scene, mask, classes in write_answers(
            draft,
            segmenter,
            scenes,
            read=read,
            presentation=presentation,
            palette=segmenter.palette,
            confidence=False,
        ):
            if ids is not None:
                save_png(draft / "submission" / names[scene.key], Image.fromarray(ids[classes]))
            if mask is not None:
                score.add(scene.key, classes, mask)
        if masks is not None:
            made = protocol(segmenter, scenes, str(scenes[0].image.parent), presentation)
            _write_figures(draft, segmenter, score, made)
    log.info("wrote %d predictions to %s", len(scenes), out)
    if submission and len(names) != TEST_PHOTOS:
        log.warning(
            "the server scores the %d photos of the test split together and refuses less; these "
            "are %d",
            TEST_PHOTOS,
            len(names),
        )


def _reader(
    segmenter: Segmenter, scenes: list[Scene], masks: Path | None, ids: str
) -> Callable[[Scene], tuple[Image.Image, np.ndarray | None]]:
    """Reads a photo, and its human mask if there are any."""
    if masks is None:
        return lambda scene: (read_image(scene.image), None)
    read_mask = mask_reader(segmenter, scenes, masks, ids=ids)
    return lambda scene: read_annotated(scene, read_mask)


def _write_figures(
    folder: Path, segmenter: Segmenter, score: SegmenterScore, made: Figures
) -> None:
    figures = figures_of(score.confusion, segmenter.classes)
    write_json(folder / "metrics.json", {**figures, "protocol": made})
    write_table(folder / "per_class.csv", per_class_rows(score.confusion, segmenter.classes))
    confusion_figure(score.confusion, segmenter.classes, folder / "confusion.png")
    tell_of_unseen(score.confusion, segmenter.classes)
    log.info("mIoU %.1f on %d photos", 100 * figures["mIoU"], len(score.photo_iou))
