"""Prediction files: masks, overlays and confidence maps, written and resumed photo by photo."""

import hashlib
import json
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from pipeline.report.drawing import RgbArray, overlay
from pipeline.segmenter.inference import Segmenter, TestTimeOptions, predict_stream
from pipeline.system.files import LIST, explain_full_disk, locked, remove
from pipeline.system.outputs import OutputList
from pipeline.system.progress import prefetch_in_threads, progress
from pipeline.system.text import error_text

log = logging.getLogger("carb")
M = TypeVar("M")
K = TypeVar("K")
MaskFormat = Literal["palette", "ids", "coco-rle"]
MASKS, OVERLAYS, CONFIDENCE = "masks", "overlays", "confidence"
ALPHA = 0.5  # opacity of the class colours in an overlay
PHOTO, VIDEO = "photo ", "video "  # prefixes of item names in the output list
NAMED = 10  # skipped files in the final error


class SkippedFiles:
    """Unreadable files: logged one by one, and named together at the end."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._last = ""

    def __len__(self) -> int:
        return len(self.names)

    def add(self, path: Path, error: Exception) -> None:
        """Log a file and its error."""
        self.names.append(str(path))
        text = error_text(error)
        self._last = text if str(path) in text else f"{path}: {text}"
        log.warning("%s; skipped", self._last)

    def check(self, total: int) -> None:
        """Raise a ValueError that names the skipped files, if there are any."""
        count = len(self.names)
        if count == 1:
            rest = f"; skipped, the other {total - 1} are finished" if total > 1 else ""
            raise ValueError(self._last + rest)
        if count:
            more = f" and {count - NAMED} more" if count > NAMED else ""
            raise ValueError(
                f"{', '.join(self.names[:NAMED])}{more}: {count} of {total} files are not readable "
                "and were skipped; replace them and run again, finished predictions are kept"
            )


def read_photos(
    photos: Mapping[str, Path], read: Callable[[str], tuple[Image.Image, M]], skipped: SkippedFiles
) -> Iterator[tuple[str, Image.Image, M]]:
    """Read photos by key in threads; unreadable ones are added to ``skipped``."""

    def attempt(key: str) -> tuple[Image.Image, M] | Exception:
        try:
            return read(key)
        except (ValueError, OSError) as error:
            return error

    for key, found in zip(photos, prefetch_in_threads(photos, attempt), strict=True):
        if isinstance(found, Exception):
            skipped.add(photos[key], found)
        else:
            yield key, *found


@dataclass(frozen=True)
class Predictor:
    """A segmenter with all settings that affect the files it writes.

    Attributes:
        segmenter: the model.
        test_time: test-time augmentation.
        palette: colours of the classes, ``[C, 3]`` uint8 RGB.
        command: the command that writes the files.
        ensemble: further segmenters of the same classes, averaged with the first.
        mask_format: palette PNGs, grey PNGs of class indices, or COCO's run-length encoding.
    """

    segmenter: Segmenter
    test_time: TestTimeOptions
    palette: RgbArray
    command: str
    ensemble: tuple[Segmenter, ...] = ()
    mask_format: MaskFormat = "palette"

    def __post_init__(self) -> None:
        if self.mask_format == "coco-rle":
            import_pycocotools()

    def made_with(self) -> dict[str, Any]:
        """What the files depend on, as JSON values: one folder never mixes two of these."""
        test_time, segmenters = asdict(self.test_time), (self.segmenter, *self.ensemble)
        return {
            "command": self.command,
            "weights": [one.digest for one in segmenters],
            "classes": self.segmenter.classes,
            "input": [
                [list(each) for each in (one.mean, one.std, one.base_size)] for one in segmenters
            ],
            "palette": self.palette.tolist(),
            "masks": self.mask_format,
            "shown": {k: list(v) if isinstance(v, tuple) else v for k, v in test_time.items()},
        }

    def stream(
        self, items: Iterable[tuple[K, Image.Image, M]], *, confidence: bool
    ) -> Iterator[tuple[K, Image.Image, M, np.ndarray]]:
        """Predict a stream of images: yields key, image, companion and ``[maps, H, W]`` uint8.

        The first map contains the classes; with ``confidence`` the second contains their
        probabilities, 255 for 1.
        """

        def more(key: K, logits: Tensor) -> list[Tensor]:
            return [(255 * logits.softmax(dim=0).amax(dim=0)).round().byte()] if confidence else []

        return predict_stream(
            self.segmenter, items, test_time=self.test_time, ensemble=self.ensemble, more=more
        )

    def overlay(self, image: Image.Image, classes: np.ndarray) -> RgbArray:
        """A photo blended with its class colours, ``[H, W, 3]`` uint8."""
        return overlay(np.asarray(image), classes, self.palette, alpha=ALPHA)

    def save_maps(self, folder: Path, key: str, maps: np.ndarray, *, ending: str = "") -> None:
        """Write the mask in its format, and the confidence map if there is one.

        ``ending`` is that of the photo, for COCO's ``file_name``.
        """
        classes, *confidence = maps
        if self.mask_format == "coco-rle":
            content = coco_content(key + ending, classes, self.segmenter.classes)
            path = folder / MASKS / f"{key}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content), "utf-8")
        else:
            indexed = Image.fromarray(classes)
            if self.mask_format == "palette":
                indexed.putpalette(self.palette.tobytes())
            save_draft(folder / MASKS / f"{key}.png", indexed)
        for one in confidence:
            save_draft(folder / CONFIDENCE / f"{key}.png", one)


def import_pycocotools() -> Any:
    """Import pycocotools.mask, an optional dependency; ValueError if it is not installed."""
    try:
        from pycocotools import mask
    except ModuleNotFoundError:
        raise ValueError(
            "--format coco-rle needs pycocotools: pip install -e '.[deploy]'"
        ) from None
    return mask


def coco_content(file_name: str, classes: np.ndarray, names: Sequence[str]) -> dict[str, Any]:
    """A photo's classes as a file of COCO: one run-length encoded region per class that occurs.

    Category ids are class indices, from 0. Source: cocodataset.org/#format-data.

    Args:
        file_name: of the photo.
        classes: ``[H, W]`` uint8.
        names: class names, by index.
    """
    rle = import_pycocotools()
    (height, width), regions = classes.shape, []
    for number, index in enumerate(np.unique(classes).tolist(), start=1):
        encoded = rle.encode(np.asfortranarray(classes == index, np.uint8))
        region = {"id": number, "image_id": 1, "category_id": index, "iscrowd": 0}
        region |= {"area": int(rle.area(encoded)), "bbox": rle.toBbox(encoded).tolist()}
        counts = encoded["counts"].decode("ascii")
        regions.append({**region, "segmentation": {"size": [height, width], "counts": counts}})
    return {
        "images": [{"id": 1, "file_name": file_name, "height": height, "width": width}],
        "categories": [{"id": index, "name": name} for index, name in enumerate(names)],
        "annotations": regions,
    }


def save_draft(path: Path, image: Image.Image | np.ndarray) -> None:
    """Write a PNG into the draft folder of an item, which is synced to disk as a whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(path, format="PNG")


def read_classes(out: Path, key: str) -> np.ndarray:
    """A photo's classes as `Predictor.save_maps` wrote them, ``[H, W]`` uint8."""
    with Image.open(out / MASKS / f"{key}.png") as picture:
        return np.asarray(picture)


def source_stamp(path: Path, *more: object) -> str:
    """Size, time and path of a source as a text, and other settings of its predictions."""
    try:
        about = path.stat()
    except OSError:  # reported when the file is read
        return "not readable"
    place = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]
    return " ".join(map(str, (about.st_size, about.st_mtime_ns, place, *more)))


@contextmanager
def open_predictions(
    out: Path, predictor: Predictor, stamps: Mapping[str, str], *, force: bool
) -> Iterator[tuple[OutputList, dict[str, str]]]:
    """Open an output folder; yield its output list, and the stamps of the unfinished items.

    Finished predictions are kept, those of other settings deleted. A new folder is removed again
    if nothing was written.

    Raises:
        ValueError: another run writes to the folder, or the disk is full.
    """
    with locked(out), explain_full_disk(out, out):
        new = not out.exists()
        out.mkdir(parents=True, exist_ok=True)
        written = OutputList(out, predictor.made_with())
        if written.names and not written.same:
            log.info("%s: made with another model or other options; replaced", out)
        elif written.names and force:
            log.info("%s: --force: predicting everything again", out)
        written.begin()
        try:
            yield written, _unfinished(written, stamps, force=force)
        finally:
            if new and not written.names:
                remove(out / LIST)
                with suppress(OSError):  # contains other files
                    out.rmdir()


def _unfinished(written: OutputList, stamps: Mapping[str, str], *, force: bool) -> dict[str, str]:
    """Stamps of the unfinished items; logs how many are finished, and how many are others."""
    todo = {name: stamp for name, stamp in stamps.items() if force or not written.has(name, stamp)}
    if done := len(stamps) - len(todo):
        log.info(
            "%s: %d of %d already finished; --force predicts them again",
            *(written.folder, done, len(stamps)),
        )
    others = {name for name in written.names - set(stamps) if name.startswith((PHOTO, VIDEO))}
    if others:
        log.info("%s: predictions of earlier runs kept: %d", written.folder, len(others))
    return todo


def write_predictions(
    written: OutputList,
    predictor: Predictor,
    photos: Mapping[str, Path],
    todo: Mapping[str, str],
    *,
    read: Callable[[str], tuple[Image.Image, M]],
    confidence: bool,
    skipped: SkippedFiles,
    also: Callable[[Path, str, np.ndarray], None] = lambda folder, key, classes: None,
) -> Iterator[tuple[str, M, np.ndarray]]:
    """Write mask and overlay of each photo, and yield its key, companion and ``[H, W]`` classes.

    Args:
        written: output list of the folder.
        predictor: the model and its settings.
        photos: path of each photo by key.
        todo: stamps of the items to predict; other photos are left as they are.
        read: loads a photo by key, and a companion such as its human mask; called in threads.
        confidence: also write the probability of the predicted class.
        skipped: collects unreadable photos.
        also: writes further files of a photo into a draft folder, given its key and classes.
    """
    photos = {key: path for key, path in photos.items() if PHOTO + key in todo}
    if not photos:
        return
    found = predictor.stream(read_photos(photos, read, skipped), confidence=confidence)
    for key, photo, companion, maps in progress(found, label="predict", total=len(photos)):
        with written.item(PHOTO + key, todo[PHOTO + key]) as folder:
            predictor.save_maps(folder, key, maps, ending=photos[key].suffix)
            save_draft(folder / OVERLAYS / f"{key}.png", predictor.overlay(photo, maps[0]))
            also(folder, key, maps[0])
        yield key, companion, maps[0]
