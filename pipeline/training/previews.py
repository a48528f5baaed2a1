"""Training previews: class maps of a few images during training, as PNGs that the report composes.

``previews.json`` holds ``step``, ``classes``, ``images`` (a list of ``key`` and ``maps``, from name
to file) and ``earlier`` (``step`` and ``images`` of the previews before). The maps are CLIP's
pseudo-mask at each level and the prediction ``segmenter``, class indices with the classes' colours
as palette and 255 for ignored pixels, and ``noisy``, the region of that step as 0 and 255.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.carb import split_by_consistency
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.scenes.image_io import read_image
from pipeline.segmenter.inference import Segmenter, most_likely, predict_logits
from pipeline.store.reader import PseudoMaskStore, hard_mask
from pipeline.system.files import atomic_path, write_json
from pipeline.training.crops import TrainingPhoto

PREVIEW_IMAGES = 3
LONGEST_SIDE = 1280  # of the maps, in pixels; larger images are reduced by a whole factor
FILE = "previews.json"


def preview_images(photos: Sequence[TrainingPhoto]) -> list[TrainingPhoto]:
    """A few images, evenly spaced."""
    every = max(1, len(photos) // PREVIEW_IMAGES)
    return list(photos[::every][:PREVIEW_IMAGES])


def write_previews(
    folder: Path,
    segmenter: Segmenter,
    store: PseudoMaskStore,
    photos: Sequence[TrainingPhoto],
    *,
    step: int,
    tau: float,
) -> None:
    """Add the maps of a step to a folder and make it the last one of ``previews.json``.

    Args:
        folder: written file by file; records of ``step`` and later ones are replaced.
        segmenter: the model in training.
        store: the pseudo-masks.
        photos: the images; the prediction does not use their image-level labels.
        step: of the training.
        tau: see `split_by_consistency`.
    """
    file = folder / FILE
    earlier: list[dict[str, Any]] = []
    if file.is_file():
        last = json.loads(file.read_text("utf-8"))
        previous = [*last["earlier"], {"step": last["step"], "images": last["images"]}]
        earlier = [each for each in previous if each["step"] < step]
    images = []
    for number, photo in enumerate(photos):
        maps = {}
        for name, values in _maps(segmenter, store, photo, tau).items():
            of_step = "" if name in store.levels else f"-{step:06d}"
            maps[name] = f"{number}-{name}{of_step}.png"
            _save_map(folder / maps[name], values, segmenter.palette)
        images.append({"key": photo.key, "maps": maps})
    content = {"step": step, "classes": segmenter.classes, "images": images, "earlier": earlier}
    write_json(file, content)


def _maps(
    segmenter: Segmenter, store: PseudoMaskStore, photo: TrainingPhoto, tau: float
) -> dict[str, Tensor]:
    """Maps of an image by name, ``[H, W]``: class indices, the noisy region bool."""
    shrink = -(-max(photo.size) // LONGEST_SIDE)
    size = (-(-photo.size[0] // shrink), -(-photo.size[1] // shrink))
    labels = torch.from_numpy(photo.image_labels)
    maps = {
        level: hard_mask(torch.from_numpy(store.read(photo.key, level)), labels, size)
        for level in store.levels
    }
    logits = predict_logits(segmenter, [read_image(photo.path)], size).cpu()
    _, noisy = split_by_consistency(logits, maps[store.global_level][None], labels[None], tau=tau)
    return maps | {"segmenter": most_likely(logits[0]), "noisy": noisy[0]}


def _save_map(path: Path, values: Tensor, palette: np.ndarray) -> None:
    """Write class indices as a PNG with the classes' colours, a bool region as 0 and 255."""
    if values.dtype == torch.bool:
        image = Image.fromarray(255 * values.numpy().astype(np.uint8))
    else:
        image = Image.fromarray(values.numpy().astype(np.uint8))
        colours = np.zeros((256, 3), np.uint8)
        colours[: len(palette)], colours[IGNORE_INDEX] = palette, 255
        image.putpalette(colours.tobytes())
    with atomic_path(path) as draft:
        image.save(draft, format="PNG")
