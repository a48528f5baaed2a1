"""Evaluation of a trained segmenter on a folder of photos, and submissions to Cityscapes.

Rules of the Cityscapes server: github.com/mcordts/cityscapesScripts,
evaluation/evalPixelLevelSemanticLabeling.py.
"""

import logging
import os
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.datasets import cityscapes
from pipeline.datasets.base import Scene, read_annotated
from pipeline.datasets.mask_ids import AUTO, PredictedClasses, find_masks, mask_reader
from pipeline.deploy.prediction_files import (
    PHOTO,
    Predictor,
    SkippedFiles,
    open_predictions,
    read_classes,
    read_photos,
    save_draft,
    source_stamp,
    write_predictions,
)
from pipeline.deploy.sources import files_outside
from pipeline.evaluation.segmenter import (
    Metrics,
    SegmenterScore,
    metrics_of,
    per_class_rows,
    protocol,
)
from pipeline.evaluation.selection import warn_unseen_classes
from pipeline.report.charts import confusion_chart
from pipeline.report.drawing import palette_of
from pipeline.scenes.image_folder import left_over, link_lines, scan_folder, warn_not_read
from pipeline.scenes.image_io import PHOTO_ENDINGS, open_image, read_image
from pipeline.segmenter.inference import Segmenter
from pipeline.system.files import write_json, write_table
from pipeline.system.text import without_folders

log = logging.getLogger("carb")
METRICS = "figures"  # name of the metric files' item in the output list
SIZE = (1024, 2048)  # (height, width) in pixels of Cityscapes photos
TEST_PHOTOS = 1525
_NAME = re.compile(r"([a-z-]+_\d{6}_\d{6})(_leftImg8bit)?")
WriteMore = Callable[[Path, str, np.ndarray], None]


def folder_scenes(images: Path, masks: Path | None, *, out: Path, ids: str = AUTO) -> list[Scene]:
    """The photos in a folder at any depth, with the masks of the same names.

    Args:
        images: folder of photos.
        masks: folder of masks, or None; files in it are not photos.
        out: output folder; files in it are not photos either.
        ids: kind of ids in the masks, see `find_masks`.

    Raises:
        ValueError: a folder is missing or contains no photo, two photos have the same name, or a
            photo has no mask.
    """
    for folder, option in ((images, "--images"), (masks, "--masks")):
        if folder is not None and not folder.is_dir():
            raise ValueError(f"{option} {folder}: no such folder; give an existing one")
    others = [folder for folder in (masks, out) if folder is not None]
    found = scan_folder(images)
    photos = files_outside(found.photos, images, *others)
    if not photos:
        raise ValueError(f"--images {images}: contains no photo ({', '.join(PHOTO_ENDINGS)})")
    inside = [one for one in others if not images.resolve().is_relative_to(one.resolve())]
    warn_not_read(images, found, set(), inside)
    chosen = {} if masks is None else find_masks(photos, masks, ids)
    for folder, files in ((images, photos), (masks, chosen)):
        for line in link_lines(folder, files.values()) if folder else ():
            log.info("%s", line)
    if masks is not None:
        used = {*photos.values(), *chosen.values()}
        for line in left_over(masks, used, "files that are not masks of the photos"):
            log.warning("%s", line)
    return [Scene(photo, chosen.get(key), "folder", key) for key, photo in photos.items()]


def evaluate_folder(
    predictor: Predictor,
    images: Path,
    masks: Path | None,
    out: Path,
    *,
    submission: bool,
    mask_ids: str = AUTO,
    force: bool = False,
) -> None:
    """Predict a folder of photos, and score the predictions if there are masks.

    Args:
        predictor: the model and its settings.
        images: folder of photos at any depth.
        masks: folder of human masks, or None.
        out: folder to write: ``masks/`` (palette PNGs of class indices), ``overlays/``, and with
            human masks ``metrics.json``, ``per_class.csv`` and ``confusion.png``. Files that an
            earlier run finished are kept.
        submission: also write ``submission/`` for the Cityscapes server.
        mask_ids: kind of ids in the masks, see `pipeline.datasets.mask_ids`.
        force: predict finished photos again.

    Raises:
        ValueError: a file is missing, unreadable or does not match; the others are finished.
    """
    scenes = {scene.key: scene for scene in folder_scenes(images, masks, out=out, ids=mask_ids)}
    photos = {key: scene.image for key, scene in scenes.items()}
    segmenter, skipped = predictor.segmenter, SkippedFiles()
    more = submission_writer(segmenter, photos) if submission else lambda *_: None
    read = _reader(segmenter, scenes, masks, mask_ids)
    stamps = {PHOTO + key: source_stamp(path, submission) for key, path in photos.items()}
    score = SegmenterScore(np.zeros((len(segmenter.classes),) * 2, dtype=np.int64))
    with open_predictions(out, predictor, stamps, force=force) as (written, todo):
        written.drop(METRICS)
        predictions = write_predictions(
            *(written, predictor, photos, todo),
            read=read,
            confidence=False,
            skipped=skipped,
            also=more,
        )
        for key, mask, classes in predictions:
            if mask is not None:
                score.add(key, classes, mask)
        finished = {key: path for key, path in photos.items() if masks and PHOTO + key not in todo}
        for key, _, mask in read_photos(finished, read, skipped):
            assert mask is not None
            score.add(key, read_classes(out, key), mask)
        if scored := [scene for key, scene in scenes.items() if key in score.photo_iou]:
            data = without_folders(str(next(iter(photos.values())).parent))
            how = protocol(segmenter, scored, data, predictor.test_time)
            if predictor.ensemble:
                how["network"] = f"mean of {1 + len(predictor.ensemble)} segmenters' probabilities"
            if skipped.names:
                how["left out"] = [os.path.relpath(name, images) for name in skipped.names]
            with written.item(METRICS) as folder:
                _write_metrics(folder, segmenter, score, how, out)
        log.info("%d of %d predictions are in %s", len(photos) - len(skipped), len(photos), out)
        skipped.check(len(photos))


def _reader(
    segmenter: Segmenter, scenes: Mapping[str, Scene], masks: Path | None, ids: str
) -> Callable[[str], tuple[Image.Image, np.ndarray | None]]:
    """A function that reads a photo by key, and its human mask if there are masks."""
    if masks is None:
        return lambda key: (read_image(scenes[key].image), None)
    palettes = [segmenter.palette, palette_of("colour_blind", segmenter.palette)]
    predicted = PredictedClasses(segmenter.classes, palettes, segmenter.extra.get("dataset"))
    read_mask = mask_reader(predicted, list(scenes.values()), masks, ids=ids)
    return lambda key: read_annotated(scenes[key], read_mask)


def _write_metrics(
    folder: Path, segmenter: Segmenter, score: SegmenterScore, how: Metrics, out: Path
) -> None:
    metrics = metrics_of(score.confusion, segmenter.classes)
    write_json(folder / "metrics.json", {**metrics, "protocol": how})
    write_table(folder / "per_class.csv", per_class_rows(score.confusion, segmenter.classes))
    confusion_chart(score.confusion, segmenter.classes, folder / "confusion.png")
    warn_unseen_classes(score.confusion, segmenter.classes)
    log.info(
        "mIoU %.1f on %d photos, see %s",
        *(100 * metrics["mIoU"], len(score.photo_iou), out / "metrics.json"),
    )


def submission_writer(segmenter: Segmenter, photos: Mapping[str, Path]) -> WriteMore:
    """A function that writes a prediction as the Cityscapes server expects it."""
    names, ids = submission_names(photos), label_ids(segmenter.classes)
    if len(names) != TEST_PHOTOS:
        log.warning(
            "the server scores the %d photos of the test split together and accepts no fewer; "
            "there are %d here",
            *(TEST_PHOTOS, len(names)),
        )
    return lambda folder, key, classes: save_draft(folder / "submission" / names[key], ids[classes])


def label_ids(classes: Sequence[str]) -> np.ndarray:
    """The labelId of each class, ``[C]`` uint8; ValueError if one is not a Cityscapes class."""
    known = dict(zip(cityscapes.LABEL_SPACE.names, cityscapes.LABEL_IDS, strict=True))
    unknown = [name for name in classes if name not in known]
    if unknown:
        raise ValueError(
            f"--submission: the segmenter's class '{unknown[0]}' is not a Cityscapes class; give a "
            "--model trained on the Cityscapes classes"
        )
    return np.array([known[name] for name in classes], np.uint8)


def submission_names(photos: Mapping[str, Path]) -> dict[str, str]:
    """The file name that the server expects for each prediction, by key.

    Raises:
        ValueError: a photo does not have the name or the size of Cityscapes photos.
    """
    names: dict[str, str] = {}
    for key, path in photos.items():
        found = _NAME.fullmatch(path.stem)
        if not found:
            raise ValueError(
                f"{path}: --submission needs photos named <city>_<sequence>_<frame>, such as "
                "berlin_000000_000019_leftImg8bit.png; use the photos of leftImg8bit"
            )
        with open_image(path) as picture:
            size = (picture.height, picture.width)
        if size != SIZE:
            raise ValueError(
                f"{path}: the server expects predictions of {SIZE[1]}x{SIZE[0]} pixels, the photo "
                f"has {size[1]}x{size[0]}; use the original photos of leftImg8bit"
            )
        name = f"{found[1]}_predLabelIds.png"
        if name in names.values():
            raise ValueError(f"{path}: another photo shows the same frame; keep one of them")
        names[key] = name
    return names
