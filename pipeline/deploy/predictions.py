"""What a segmenter says of photos, as files a person can look at and a program can read."""

import hashlib
import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from pipeline.datasets.base import Scene
from pipeline.report.drawing import RgbArray, overlay, save_png
from pipeline.segmenter.inference import Segmenter, TestTimeOptions, predict_stream
from pipeline.system.disk import explain_full_disk
from pipeline.system.files import LIST, locked, remove
from pipeline.system.outputs import OutputList
from pipeline.system.progress import prefetch_in_threads, progress
from pipeline.system.text import error_text

log = logging.getLogger("carb")
M = TypeVar("M")
MASKS, OVERLAYS, CONFIDENCE, LEGEND = "masks", "overlays", "confidence", "legend.png"
ALPHA = 0.5  # share of the class's colour in an overlay
PHOTO, VIDEO = "photo ", "video "  # begin the names of items, see `pipeline.system.outputs`
NAMED = 10  # files that are named in the last line of a run
UNREADABLE = (ValueError, OSError)  # what reading a photo, a mask or a video raises


def made_with(
    command: str, segmenter: Segmenter, presentation: TestTimeOptions, palette: RgbArray
) -> dict[str, Any]:
    """All that changes what is written of a photo: what differs in it is never mixed."""
    shown = asdict(presentation)
    return {
        "command": command,
        "weights": segmenter.digest,
        "classes": segmenter.classes,
        "input": [list(each) for each in (segmenter.mean, segmenter.std, segmenter.base_size)],
        "palette": palette.tolist(),
        "shown": {name: list(v) if isinstance(v, tuple) else v for name, v in shown.items()},
    }


@contextmanager
def opened_list(out: Path, made: dict[str, Any], *, force: bool) -> Iterator[OutputList]:
    """A folder of answers, to go on with; that of another model or other options is emptied.

    Nothing is left of a new folder that nothing was written to.

    Raises:
        ValueError: another run writes there, or the disk is full.
    """
    with locked(out), explain_full_disk(out, out), _opened(out, made, force=force) as written:
        yield written


@contextmanager
def _opened(out: Path, made: dict[str, Any], *, force: bool) -> Iterator[OutputList]:
    new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    written = OutputList(out, made)
    if written.names and not written.same:
        log.info("%s: made by another model or with other options; all of it is replaced", out)
    elif written.names and force:
        log.info("%s: --force: all is made again", out)
    written.begin()
    try:
        yield written
    finally:
        if new and not written.names:
            remove(out / LIST)
            with suppress(OSError):  # somebody put something there
                out.rmdir()


def source_of(path: Path, *more: object) -> str:
    """A photo or video as it is now: size, time and place, and what else changes its files."""
    try:
        about = path.stat()
    except OSError:  # reading it will tell
        return "not readable"
    place = hashlib.sha256(os.fsencode(path.absolute())).hexdigest()[:16]
    return " ".join(map(str, (about.st_size, about.st_mtime_ns, place, *more)))


def pending(written: OutputList, named: dict[str, str], *, force: bool) -> set[str]:
    """Names of the items that are not finished; says what is passed over and what is kept.

    Args:
        written: the folder.
        named: for each item what `source_of` says.
        force: all are.
    """
    todo = {name for name, of in named.items() if force or not written.has(name, of)}
    if len(todo) < len(named):
        log.info(
            "%s: %d of %d are finished, by an earlier run; --force makes them again",
            *(written.folder, len(named) - len(todo), len(named)),
        )
    others = {name for name in written.names - set(named) if name.startswith((PHOTO, VIDEO))}
    if others:
        log.info("%s: %d others of earlier runs are kept", written.folder, len(others))
    return todo


class DamagedError(Exception):
    """A file turned out to be damaged while it was worked on."""


class Faults:
    """Files that could not be read: each is told at once, all of them in the end."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self._last = ""

    def add(self, path: Path, error: Exception) -> None:
        """Tell of one, and keep it."""
        self.names.append(str(path))
        text = error_text(error)
        self._last = text if str(path) in text else f"{path}: {text}"
        log.warning("%s; left out", self._last)

    def __len__(self) -> int:
        return len(self.names)

    @contextmanager
    def of(self, path: Path) -> Iterator[None]:
        """Go on after work on a file that turns out to be damaged."""
        try:
            yield
        except DamagedError as error:
            self.add(path, error)

    def as_figures(self, below: Path) -> dict[str, Any]:
        """For the protocol of figures: what they do not count, by path below a folder."""
        return (
            {"left out": [os.path.relpath(name, below) for name in self.names]}
            if self.names
            else {}
        )

    def check(self, total: int) -> None:
        """End a run that left files out.

        Raises:
            ValueError: names them.
        """
        count, more = len(self.names), len(self.names) - NAMED
        if count == 1:
            rest = f"; left out, {total - 1} others are finished" if total > 1 else ""
            raise ValueError(self._last + rest)
        if count:
            raise ValueError(
                f"{', '.join(self.names[:NAMED])}{f' and {more} others' if more > 0 else ''}: "
                f"{count} of {total} are not readable and left out; replace them and run again, "
                "what is finished is kept"
            )


def readable(
    scenes: Sequence[Scene], read: Callable[[Scene], tuple[Image.Image, M]], faults: Faults
) -> Iterator[tuple[Scene, Image.Image, M]]:
    """Photos and what belongs to them, read ahead; those that are not readable are left out."""

    def look(scene: Scene) -> tuple[Image.Image, M] | Exception:
        try:
            return read(scene)
        except UNREADABLE as error:
            return error

    for scene, found in zip(scenes, prefetch_in_threads(scenes, look), strict=True):
        if isinstance(found, Exception):
            faults.add(scene.image, found)
        else:
            yield scene, *found


def write_predictions(
    written: OutputList,
    segmenter: Segmenter,
    scenes: Sequence[Scene],
    *,
    read: Callable[[Scene], tuple[Image.Image, M]],
    presentation: TestTimeOptions,
    palette: RgbArray,
    confidence: bool,
    faults: Faults,
    also: Callable[[Path, Scene, np.ndarray], None] = lambda folder, scene, classes: None,
    named: dict[str, str],
) -> Iterator[tuple[Scene, M, np.ndarray]]:
    """Write mask and overlay of each photo, and hand its classes on.

    Args:
        written: gets ``masks/`` and ``overlays/``, and with ``confidence`` a folder of that name.
        segmenter: the model.
        scenes: the photos.
        read: gives a photo and what belongs to it; runs in threads.
        presentation: how the photos are shown.
        palette: colours of the classes, ``[C, 3]`` uint8 RGB.
        confidence: also write how probable each pixel's class is.
        faults: gets the photos that are not readable.
        also: writes more files of a photo.
        named: for each photo's item what `source_of` says.

    Yields:
        scene, what belongs to it, and its classes ``[H, W]`` uint8.
    """
    if not scenes:
        return
    found = predict_stream(
        segmenter,
        readable(scenes, read, faults),
        presentation=presentation,
        more=lambda scene, logits: [probability(logits)] if confidence else [],
    )
    for scene, photo, beside, maps in progress(found, label="predict", total=len(scenes)):
        with written.item(name := PHOTO + scene.key, named[name]) as folder:
            save_maps(folder, scene.key, maps, palette)
            save_png(folder / OVERLAYS / f"{scene.key}.png", painted(photo, maps[0], palette))
            also(folder, scene, maps[0])
        yield scene, beside, maps[0]


def written_classes(out: Path, key: str) -> np.ndarray:
    """A photo's classes as `save_maps` wrote them, ``[H, W]`` uint8."""
    with Image.open(out / MASKS / f"{key}.png") as picture:
        return np.asarray(picture)


def probability(logits: Tensor) -> Tensor:
    """How probable the most likely class is, ``[C, H, W]`` -> ``[H, W]`` uint8, 255 for 1."""
    return (255 * logits.softmax(dim=0).amax(dim=0)).round().byte()


def save_maps(folder: Path, key: str, maps: np.ndarray, palette: RgbArray) -> None:
    """Write a photo's classes, a PNG of class indices that viewers show in the classes' colours,
    and how sure they are, if that is the second of the maps."""
    classes, *sure = maps
    picture = Image.fromarray(classes)
    picture.putpalette(palette.tobytes())
    save_png(folder / MASKS / f"{key}.png", picture)
    for one in sure:
        save_png(folder / CONFIDENCE / f"{key}.png", one)


def painted(photo: Image.Image, classes: np.ndarray, palette: RgbArray) -> RgbArray:
    """A photo with its classes' colours over it, ``[H, W, 3]`` uint8."""
    return overlay(np.asarray(photo), classes, palette, alpha=ALPHA)
