"""Score or predict a plain folder of photos with a trained segmenter."""

import logging
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.datasets.base import Scene, read_annotated
from pipeline.datasets.mask_ids import AUTO, PredictedClasses, find_masks, mask_reader
from pipeline.deploy.predictions import (
    PHOTO,
    Faults,
    made_with,
    opened_list,
    pending,
    readable,
    source_of,
    write_predictions,
    written_classes,
)
from pipeline.deploy.submission import TEST_PHOTOS, label_ids, submission_names
from pipeline.evaluation.photos import tell_of_unseen
from pipeline.evaluation.scores import Metrics, SegmenterScore, metrics_of, per_class_rows, protocol
from pipeline.report.drawing import confusion_figure, save_png
from pipeline.report.palettes import palette_of
from pipeline.scenes.image_folder import left_over, look_below, tell_not_read
from pipeline.scenes.image_io import PHOTO_ENDINGS, read_image
from pipeline.segmenter.inference import Segmenter, TestTimeOptions
from pipeline.system.files import write_json
from pipeline.system.tables import write_table
from pipeline.system.text import without_folders

log = logging.getLogger("carb")
FIGURES = "figures"  # the item of metrics.json and its like


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
    found = look_below(images)
    photos = {
        key: photo
        for key, photo in found.photos.items()
        if not any(photo.resolve().is_relative_to(folder) for folder in inside)
    }
    if not photos:
        raise ValueError(f"--images {images}: holds no photo ({', '.join(PHOTO_ENDINGS)})")
    tell_not_read(images, found, set(), inside)
    chosen = {} if masks is None else find_masks(photos, masks, ids)
    if masks is not None:
        used = {*photos.values(), *chosen.values()}
        for line in left_over(masks, used, "files that are no mask of a photo"):
            log.warning("%s", line)
    return [Scene(photo, chosen.get(key), "folder", key) for key, photo in photos.items()]


def evaluate_folder(
    segmenter: Segmenter,
    images: Path,
    masks: Path | None,
    *,
    out: Path,
    presentation: TestTimeOptions,
    submission: bool,
    mask_ids: str = AUTO,
    force: bool = False,
) -> None:
    """Write predictions and overlays of a folder of photos, and with masks their figures.

    Args:
        segmenter: the model.
        images: folder of photos, in any sub-folders.
        masks: folder of human masks, or None.
        out: folder to write, see `opened_list`: ``masks/`` (palette PNGs of class indices),
            ``overlays/``, and with masks ``metrics.json``, ``per_class.csv``, ``confusion.png``.
        presentation: scales, flips and windows.
        submission: also write ``submission/``, as the Cityscapes server takes it.
        mask_ids: what the ids in the masks are, see `pipeline.datasets.mask_ids`.
        force: predict finished photos again.

    Raises:
        ValueError: a file is missing, unreadable or does not fit its photo; the others are written.
    """
    scenes, faults = folder_scenes(images, masks, out=out, ids=mask_ids), Faults()
    submit = _submission(segmenter, scenes) if submission else lambda folder, scene, classes: None
    read = _reader(segmenter, scenes, masks, mask_ids)
    named = {PHOTO + scene.key: source_of(scene.image, submission) for scene in scenes}
    made = made_with("eval", segmenter, presentation, segmenter.palette)
    score = SegmenterScore(np.zeros((len(segmenter.classes),) * 2, dtype=np.int64))
    with opened_list(out, made, force=force) as written:
        todo = pending(written, named, force=force)
        written.drop(FIGURES)
        for scene, mask, classes in write_predictions(
            written,
            segmenter,
            [scene for scene in scenes if PHOTO + scene.key in todo],
            read=read,
            presentation=presentation,
            palette=segmenter.palette,
            confidence=False,
            faults=faults,
            also=submit,
            named=named,
        ):
            if mask is not None:
                score.add(scene.key, classes, mask)
        finished = [scene for scene in scenes if masks and PHOTO + scene.key not in todo]
        _score_written(out, readable(finished, read, faults), score)
        if scored := [scene for scene in scenes if scene.key in score.photo_iou]:
            data = without_folders(str(scenes[0].image.parent))
            how = protocol(segmenter, scored, data, presentation) | faults.as_figures(images)
            with written.item(FIGURES) as folder:
                _write_figures(folder, segmenter, score, how, out)
        log.info("%d of %d predictions are in %s", len(scenes) - len(faults), len(scenes), out)
        faults.check(len(scenes))
        written.finish()


def _score_written(
    out: Path,
    found: Iterable[tuple[Scene, Image.Image, np.ndarray | None]],
    score: SegmenterScore,
) -> None:
    """Count predictions of an earlier run, as they were written."""
    for scene, _, mask in found:
        assert mask is not None
        score.add(scene.key, written_classes(out, scene.key), mask)


def _submission(
    segmenter: Segmenter, scenes: Sequence[Scene]
) -> Callable[[Path, Scene, np.ndarray], None]:
    """Writes a photo's prediction as the Cityscapes server takes it."""
    names, ids = submission_names(scenes), label_ids(segmenter.classes)
    if len(names) != TEST_PHOTOS:
        log.warning(
            "the server scores the %d photos of the test split together and refuses less; these "
            "are %d",
            TEST_PHOTOS,
            len(names),
        )

    def write(folder: Path, scene: Scene, classes: np.ndarray) -> None:
        save_png(folder / "submission" / names[scene.key], Image.fromarray(ids[classes]))

    return write


def _reader(
    segmenter: Segmenter, scenes: list[Scene], masks: Path | None, ids: str
) -> Callable[[Scene], tuple[Image.Image, np.ndarray | None]]:
    """Reads a photo, and its human mask if there are any."""
    if masks is None:
        return lambda scene: (read_image(scene.image), None)
    palettes = [segmenter.palette, palette_of("colour_blind", segmenter.palette)]
    dataset = segmenter.extra.get("dataset")
    predicted = PredictedClasses(segmenter.classes, palettes, dataset)
    read_mask = mask_reader(predicted, scenes, masks, ids=ids)
    return lambda scene: read_annotated(scene, read_mask)


def _write_figures(
    folder: Path, segmenter: Segmenter, score: SegmenterScore, made: Metrics, out: Path
) -> None:
    figures = metrics_of(score.confusion, segmenter.classes)
    write_json(folder / "metrics.json", {**figures, "protocol": made})
    write_table(folder / "per_class.csv", per_class_rows(score.confusion, segmenter.classes))
    confusion_figure(score.confusion, segmenter.classes, folder / "confusion.png")
    tell_of_unseen(score.confusion, segmenter.classes)
    log.info(
        "mIoU %.1f on %d photos, see %s",
        *(100 * figures["mIoU"], len(score.photo_iou), out / "metrics.json"),
    )
