"""Image-level labels that CLIP proposes and a person corrects.

CLIP looks at the windows of its levels and at the photo as a whole, each as one picture, and
compares them with the classes. The window that shows a class best decides: a traffic light is lost
in the photo, and large in one of its windows. docs/proposals.md compares this with other measures.
"""

import csv
import itertools
import logging
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipeline.clip.dense import DenseClip
from pipeline.clip.windows import magnified, window_batches
from pipeline.config.params import LevelParams
from pipeline.datasets.base import Dataset, Scene
from pipeline.datasets.folder import CONFIDENCE, LABELS, labels_in
from pipeline.datasets.folder_layout import photo_folder
from pipeline.scenes.image_folder import PAGE
from pipeline.scenes.image_io import read_image
from pipeline.system.command import prefetch_in_threads, progress
from pipeline.system.files import atomic_path
from pipeline.views import Box, cover

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger("carb")
SHEETS = "proposals"
THUMBNAIL = (176, 132)  # width, height at most; pixels


@dataclass(frozen=True)
class Proposal:
    """What CLIP says of a photo.

    Attributes:
        photo: its path below the folder of photos.
        thumbnail: the photo, small.
        confidence: that a class is in it, ``[C]`` in 0..1.
    """

    photo: str
    thumbnail: Image.Image
    confidence: np.ndarray


@torch.no_grad()
def window_confidence(
    image: Image.Image, clip: DenseClip, text: Tensor, levels: Sequence[LevelParams]
) -> Tensor:
    """How sure CLIP is of each class in the window that shows it best.

    Args:
        image: the photo.
        clip: the frozen model.
        text: class embeddings, ``[C, D]``.
        levels: magnifications and windows.

    Returns:
        ``[C]`` in 0..1: the largest softmax over the classes, at the temperature that CLIP learned.
    """
    embedded = window_embeddings(clip, looks(image, clip, levels))
    with torch.autocast(embedded.device.type, enabled=False):
        return (temperature(clip) * embedded @ text.T).softmax(dim=1).amax(dim=0)


def temperature(clip: DenseClip) -> float:
    """The factor that CLIP learned for its similarities."""
    model: Any = clip.model
    return float(model.logit_scale.exp())


def looks(
    image: Image.Image, clip: DenseClip, levels: Sequence[LevelParams]
) -> list[tuple[Tensor, list[Box]]]:
    """The photo as a whole, and magnified with its windows: pixels ``[H, W, 3]`` and boxes."""
    squeezed = image.resize(clip.image_size[::-1], Image.Resampling.BICUBIC)
    found = [(torch.from_numpy(np.array(squeezed)), [Box(0, 0, *clip.image_size)])]
    for level in levels:
        pixels = magnified(image, level, patch_size=clip.patch_size)
        size = (pixels.shape[0], pixels.shape[1])
        boxes = cover(size, window=level.window, overlap=level.overlap, patch_size=clip.patch_size)
        found.append((pixels, list(boxes)))
    return found


@torch.no_grad()
def window_embeddings(clip: DenseClip, shown: Sequence[tuple[Tensor, list[Box]]]) -> Tensor:
    """Embed windows as whole pictures: ``[n, D]`` float32 of L2 norm 1, n windows in all.

    They are squeezed to the size that the tower was trained with: unlike patches, whole pictures
    have one embedding at that size alone.
    """
    encode: Any = clip.model.encode_image
    found = []
    for pixels, boxes in shown:
        for windows in window_batches(pixels.to(clip.device), boxes, clip):
            if windows.shape[-2:] != clip.image_size:
                windows = F.interpolate(windows, clip.image_size, mode="bicubic", antialias=True)
            found.append(encode(windows).float())
    return F.normalize(torch.cat(found), dim=1)


def propose(
    fabric: "Fabric",
    clip: DenseClip,
    dataset: Dataset,
    *,
    levels: Sequence[LevelParams],
    words: list[list[str]],
    templates: list[str],
) -> list[Proposal]:
    """Let CLIP look at every training photo.

    Args:
        fabric: the device.
        clip: the frozen model.
        dataset: the photos and classes.
        levels: magnifications and windows.
        words: for each class the words that mean it.
        templates: sentences around them.
    """
    clip.to(fabric.device)
    text = clip.embed_text(words, templates)
    home, scenes = photo_folder(dataset.root), dataset.scenes("train")

    def read(scene: Scene) -> tuple[Scene, Image.Image]:
        return scene, read_image(scene.image)

    found = []
    for scene, image in progress(
        prefetch_in_threads(scenes, read), label="CLIP", total=len(scenes)
    ):
        with fabric.autocast():
            confidence = window_confidence(image, clip, text, levels).cpu().numpy()
        image.thumbnail(THUMBNAIL)
        found.append(Proposal(scene.image.relative_to(home).as_posix(), image, confidence))
    return found


def check_no_labels(root: Path, *, force: bool) -> None:
    """Refuse to replace labels, which may be somebody's work, unasked.

    Raises:
        ValueError: there are labels; says which.
    """
    path = labels_in(root)
    if path is not None and path.name != LABELS[0]:
        raise ValueError(f"{path}: holds labels already; move it away to have some proposed")
    if path is not None and not force:
        raise ValueError(
            f"{path}: is there already; --force proposes anew and keeps this one as "
            f"{_free_name(path).name}"
        )


def _free_name(path: Path) -> Path:
    """Where an earlier file is kept: ``labels.1.csv``, or the next number that is free."""
    names = (path.with_name(f"{path.stem}.{number}{path.suffix}") for number in itertools.count(1))
    return next(name for name in names if not os.path.lexists(name))


def keep_labels(root: Path) -> None:
    """Copy ``labels.csv``, if there is one, to a name of its own. Says where, and what is lost."""
    path = root / LABELS[0]
    if not path.exists():
        return
    kept = _free_name(path)
    with atomic_path(kept) as draft:
        shutil.copyfile(path, draft)
    log.warning(
        "%s: kept as %s, with its corrections; the new page loads it. Corrections on the earlier "
        "page that were not downloaded are not in it",
        path,
        kept.name,
    )


def write_proposals(
    root: Path, found: list[Proposal], classes: list[str], *, threshold: float
) -> None:
    """Write ``labels.csv``, and how sure CLIP is of each into ``label_confidence.csv``.

    Earlier labels are kept beside them, see `keep_labels`.
    """
    keep_labels(root)
    tagged = [(each.confidence >= threshold).astype(int).tolist() for each in found]
    sure = [[f"{value:.3f}" for value in each.confidence] for each in found]
    for name, rows in ((CONFIDENCE, sure), (LABELS[0], tagged)):
        lines = [[each.photo, *map(str, row)] for each, row in zip(found, rows, strict=True)]
        # The mark tells Excel that this is UTF-8.
        with (
            atomic_path(root / name) as draft,
            draft.open("w", newline="", encoding="utf-8-sig") as handle,
        ):
            csv.writer(handle, lineterminator="\n").writerows([["photo", *classes], *lines])
    count = sum(map(sum, tagged))
    log.info(
        "%d photos, %.1f of %d classes each; look at %s, correct %s, then: dvc repro",
        len(found),
        count / len(found),
        len(classes),
        root / SHEETS / PAGE,
        root / LABELS[0],
    )
    for number, row in enumerate(tagged):
        if not any(row):
            log.warning("%s: no class at all; left out of training", found[number].photo)
