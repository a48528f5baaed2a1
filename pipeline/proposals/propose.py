"""Label proposals: CLIP proposes image-level labels for a user's own photos.

CLIP embeds the whole photo and the windows of its levels, each as one image, and compares them with
the classes. The best window counts, since small objects such as traffic lights are large in one of
the windows. docs/proposals.md compares this with other measures.
"""

import csv
import itertools
import logging
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.clip.dense import DenseClip, as_the_authors, load_clip
from pipeline.clip.prompts import resolve_templates
from pipeline.clip.windows import exposed, magnified, window_batches
from pipeline.config.clip import LevelParams, check_knows_photos
from pipeline.config.params import load_params
from pipeline.datasets import open_dataset
from pipeline.datasets.base import Dataset, Scene
from pipeline.datasets.collect import log_remarks, used_scenes
from pipeline.datasets.folder import CONFIDENCE, LABELS, find_labels
from pipeline.datasets.folder_layout import photo_folder
from pipeline.proposals.page import Proposal, write_page
from pipeline.scenes.image_folder import PAGE
from pipeline.scenes.image_io import read_image
from pipeline.system.command import memory_hint
from pipeline.system.devices import start_fabric
from pipeline.system.files import atomic_path
from pipeline.system.outputs import outputs
from pipeline.system.progress import prefetch_in_threads, progress
from pipeline.views import Box, cover

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger("carb")
FOLDER = "proposals"
MOST = 0.8  # share of the classes from which proposals say little
THUMBNAIL = (176, 132)  # maximum width, height in pixels


def propose_labels(params: Path, *, threshold: float, force: bool) -> None:
    """Propose labels for the training photos of ``dataset.root``, and write a page to correct them.

    Args:
        params: the parameter file.
        threshold: minimum confidence for proposing a class.
        force: write a new ``labels.csv`` and keep the earlier one as ``labels.1.csv``.

    Raises:
        ValueError: the data set is not a folder of photos, or has labels.
    """
    settings = load_params(params)
    named, clip_params = settings.dataset, settings.clip
    if named.name != "folder":
        raise ValueError(
            f"{params}: dataset.name must be 'folder' to propose labels, got '{named.name}'; "
            "the labels of other data sets are simulated from their masks"
        )
    check_knows_photos(clip_params, named.name)
    dataset = open_dataset(named.name, named.root)
    check_no_labels(dataset.root, force=force)
    log_remarks(dataset, used_scenes(dataset))
    folder = dataset.root / FOLDER
    written = outputs("propose-labels", folders={"the folder of proposals": folder})
    clip = load_clip(clip_params.model, clip_params.pretrained)
    clip = as_the_authors(
        clip, normalisation=clip_params.normalisation, activation=clip_params.activation
    )
    hint = "lower the windows of params.yaml: clip.levels, or use a smaller clip.model"
    with written, memory_hint(hint):
        found = propose(
            start_fabric(clip_params.precision),
            clip,
            dataset,
            levels=list(clip_params.levels.values()),
            prompts=dataset.label_space.words(clip_params.class_prompts),
            templates=resolve_templates(clip_params.templates),
            brightness=clip_params.brightness,
        )
        write_page(folder, found, dataset.label_space, threshold=threshold)
    write_proposals(dataset.root, found, dataset.label_space.names, threshold=threshold)


def propose(
    fabric: "Fabric",
    clip: DenseClip,
    dataset: Dataset,
    *,
    levels: Sequence[LevelParams],
    prompts: list[list[str]],
    templates: list[str],
    brightness: float | None,
) -> list[Proposal]:
    """CLIP's confidence in each class for every training photo.

    Args:
        fabric: the device.
        clip: the frozen model.
        dataset: the photos and classes.
        levels: magnifications and windows.
        prompts: the class prompts of each class.
        templates: prompt templates.
        brightness: ``clip.brightness``, see `exposed`.
    """
    clip.to(fabric.device)
    text = clip.embed_text(prompts, templates)
    home, scenes = photo_folder(dataset.root), dataset.scenes("train")

    def read(scene: Scene) -> tuple[Scene, Image.Image]:
        return scene, read_image(scene.image)

    found = []
    for scene, image in progress(
        prefetch_in_threads(scenes, read), label="CLIP", total=len(scenes)
    ):
        with fabric.autocast():
            seen = exposed(image, brightness)
            confidence = window_confidence(seen, clip, text, levels).cpu().numpy()
        image.thumbnail(THUMBNAIL)
        found.append(Proposal(scene.image.relative_to(home).as_posix(), image, confidence))
    return found


@torch.no_grad()
def window_confidence(
    image: Image.Image, clip: DenseClip, text: Tensor, levels: Sequence[LevelParams]
) -> Tensor:
    """CLIP's confidence in each class, the maximum over all windows.

    Args:
        image: the photo.
        clip: the frozen model.
        text: class embeddings, ``[C, D]``.
        levels: magnifications and windows.

    Returns:
        ``[C]`` in 0..1: the largest softmax over the classes, at CLIP's learned temperature.
    """
    embedded = window_embeddings(clip, photo_windows(image, clip, levels))
    with torch.autocast(embedded.device.type, enabled=False):
        return (temperature(clip) * embedded @ text.T).softmax(dim=1).amax(dim=0)


def temperature(clip: DenseClip) -> float:
    """CLIP's learned scale of the similarities (an inverse temperature)."""
    model: Any = clip.model
    return float(model.logit_scale.exp())


def photo_windows(
    image: Image.Image, clip: DenseClip, levels: Sequence[LevelParams]
) -> list[tuple[Tensor, list[Box]]]:
    """The whole photo, and its windows at each level: pixels ``[H, W, 3]`` and boxes."""
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
    """Embed windows as whole images: ``[n, D]`` float32 of L2 norm 1, n windows in all."""
    embedded = [
        clip.embed_images(windows)
        for pixels, boxes in shown
        for windows in window_batches(pixels.to(clip.device), boxes, clip)
    ]
    return torch.cat(embedded)


def check_no_labels(root: Path, *, force: bool) -> None:
    """Refuse to replace labels, which may have been corrected by hand.

    Raises:
        ValueError: there are labels.
    """
    path = find_labels(root)
    if path is not None and path.name != LABELS[0]:
        raise ValueError(f"{path}: contains labels; move it away to propose new ones")
    if path is not None and not force:
        raise ValueError(
            f"{path}: already exists; --force proposes new labels and keeps this file as "
            f"{_free_name(path).name}"
        )


def _free_name(path: Path) -> Path:
    """The path that an earlier file is kept as: ``labels.1.csv``, or the next free number."""
    names = (path.with_name(f"{path.stem}.{number}{path.suffix}") for number in itertools.count(1))
    return next(name for name in names if not os.path.lexists(name))


def write_proposals(
    root: Path, found: list[Proposal], classes: list[str], *, threshold: float
) -> None:
    """Write ``labels.csv``, and the confidence in each class as ``label_confidence.csv``.

    An earlier ``labels.csv`` is copied to ``labels.1.csv``.
    """
    path = root / LABELS[0]
    if path.exists():
        with atomic_path(kept := _free_name(path)) as draft:
            shutil.copyfile(path, draft)
        log.warning(
            "%s: kept as %s, including its corrections; the new page can load it. Corrections on "
            "the earlier page that were not downloaded are not included",
            *(path, kept.name),
        )
    labels = [(each.confidence >= threshold).astype(int).tolist() for each in found]
    confidence = [[f"{value:.3f}" for value in each.confidence] for each in found]
    for name, rows in ((CONFIDENCE, confidence), (LABELS[0], labels)):
        lines = [[each.photo, *map(str, row)] for each, row in zip(found, rows, strict=True)]
        # Excel recognises UTF-8 by the byte order mark.
        with (
            atomic_path(root / name) as draft,
            draft.open("w", newline="", encoding="utf-8-sig") as handle,
        ):
            csv.writer(handle, lineterminator="\n").writerows([["photo", *classes], *lines])
    mean = sum(map(sum, labels)) / len(found)
    log.info("proposed: %.1f of %d classes per photo, %d photos", mean, len(classes), len(found))
    if mean >= MOST * len(classes):
        log.warning(
            "nearly every class is proposed, hardly better than naming all; correct the labels, or "
            "raise --threshold"
        )
    log.info(
        "next: open %s, save the corrections as %s, then: dvc repro", root / FOLDER / PAGE, path
    )
    for each, row in zip(found, labels, strict=True):
        if not any(row):
            log.warning("%s: no class proposed; left out of training", each.photo)
