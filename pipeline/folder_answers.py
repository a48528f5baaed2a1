"""What a segmenter says of photos, as files a person can look at and a program can read."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np
from PIL import Image
from torch import Tensor

from pipeline.inference import Presentation, Segmenter, predictions
from pipeline.runtime import progress
from pipeline.scene import Scene
from pipeline.visualise import Picture, overlay, save_png

log = logging.getLogger("carb")
M = TypeVar("M")
MASKS, OVERLAYS, CONFIDENCE, LEGEND = "masks", "overlays", "confidence", "legend.png"
ALPHA = 0.5  # share of the class's colour in an overlay
# All that any command writes into a folder of answers: such a folder may be replaced.
OURS = {MASKS, OVERLAYS, CONFIDENCE, LEGEND, "submission"}
OURS |= {"metrics.json", "per_class.csv", "confusion.png"}


def check_out(out: Path, sources: Mapping[str, Path]) -> None:
    """Refuse to replace anything but an earlier output: ``out`` is deleted with all it holds.

    Args:
        out: the folder that is to be written.
        sources: what is read, by the words that name it on the command line.

    Raises:
        ValueError: a source lies in ``out``, or something else does.
    """
    for name, source in sources.items():
        if source.resolve().is_relative_to(out.resolve()):
            raise ValueError(
                f"--out {out}: would be replaced, and {name} {source} lies there; give the name "
                "of a new folder"
            )
    if out.exists() and not (out.is_dir() and {path.name for path in out.iterdir()} <= OURS):
        raise ValueError(f"--out {out}: holds other files; give the name of a new folder")


def write_answers(
    folder: Path,
    segmenter: Segmenter,
    scenes: Sequence[Scene],
    *,
    read: Callable[[Scene], tuple[Image.Image, M]],
    presentation: Presentation,
    palette: Picture,
    confidence: bool,
) -> Iterator[tuple[Scene, M, np.ndarray]]:
    """Write mask and overlay of each photo, and hand its classes on.

    Args:
        folder: gets ``masks/`` and ``overlays/``, and with ``confidence`` a folder of that name.
        segmenter: the model.
        scenes: the photos.
        read: gives a photo and what belongs to it; runs in threads.
        presentation: how the photos are shown.
        palette: colours of the classes, ``[C, 3]`` uint8 RGB.
        confidence: also write how probable each pixel's class is.

    Yields:
        scene, what belongs to it, and its classes ``[H, W]`` uint8.
    """
    found = predictions(
        segmenter,
        scenes,
        read=read,
        presentation=presentation,
        more=lambda scene, logits: [probability(logits)] if confidence else [],
    )
    for scene, photo, beside, maps in progress(found, label="predict", total=len(scenes)):
        save_maps(folder, scene.key, maps, palette)
        save_png(folder / OVERLAYS / f"{scene.key}.png", painted(photo, maps[0], palette))
        yield scene, beside, maps[0]


def probability(logits: Tensor) -> Tensor:
    """How probable the most likely class is, ``[C, H, W]`` -> ``[H, W]`` uint8, 255 for 1."""
    return (255 * logits.softmax(dim=0).amax(dim=0)).round().byte()


def save_maps(folder: Path, key: str, maps: np.ndarray, palette: Picture) -> None:
    """Write a photo's classes, a PNG of class indices that viewers show in the classes' colours,
    and how sure they are, if that is the second of the maps."""
    classes, *sure = maps
    picture = Image.fromarray(classes)
    picture.putpalette(palette.tobytes())
    save_png(folder / MASKS / f"{key}.png", picture)
    for one in sure:
        save_png(folder / CONFIDENCE / f"{key}.png", one)


def painted(photo: Image.Image, classes: np.ndarray, palette: Picture) -> Picture:
    """A photo with its classes' colours over it, ``[H, W, 3]`` uint8."""
    return overlay(np.asarray(photo), classes, palette, alpha=ALPHA)
