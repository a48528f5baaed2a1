"""Stage 1: every photo through CLIP once, into the store."""

import logging
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.clip_dense import DenseClip
from pipeline.config import ClipParams, FusedParams, LevelParams
from pipeline.edges import fuse
from pipeline.index import SceneIndex
from pipeline.pseudo_masks import asked_of_clip
from pipeline.runtime import atomic_path, progress, remove
from pipeline.scene import read_image
from pipeline.store import FUSED, Grid, Photo, Plan, PseudoMaskStore, StoreWriter
from pipeline.views import Box, blend, cover, fitted_size, level_size

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger("carb")
# Raise it when views, towers, last_block, outliers, clip_dense or this file change what is stored.
MATHS = 1
WINDOWS_A_CALL = 64


def plan_store(
    index: SceneIndex,
    clip: DenseClip,
    *,
    params: ClipParams,
    words: list[list[str]],
    templates: list[str],
    classes: list[str],
    precision: str,
) -> Plan:
    """Say what the store must hold: everything that determines a logit, and every photo's grids."""
    recipe = asked_of_clip(params, words) | {
        "maths": MATHS,
        "weights": clip.weights_digest(),
        "sentences": templates,
        "precision": precision,
    }
    photos = [Photo(photo.key, photo.digest, photo.size) for photo in index.photos]
    grids = {
        name: [_grid(photo.size, level, clip.patch_size) for photo in photos]
        for name, level in params.levels.items()
    }
    if params.fused is not None:
        grids[FUSED] = [_fused_grid(photo.size, params.fused) for photo in photos]
    return Plan(recipe, classes, photos, grids)


def _grid(size: tuple[int, int], level: LevelParams, patch_size: int) -> Grid:
    height, width = level_size(size, zoom=level.zoom, patch_size=patch_size)
    return height // patch_size, width // patch_size


def _fused_grid(size: tuple[int, int], fused: FusedParams) -> Grid:
    height, width = fitted_size(size, base_size=fused.size, stride=fused.stride)
    return height // fused.stride, width // fused.stride


def normalised(image: Image.Image, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """A picture as ``[3, H, W]`` float32, with the mean and deviation that a network expects."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255  # [3, H, W]
    return (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]


@torch.no_grad()
def cover_features(
    image: Image.Image, level: LevelParams, clip: DenseClip, encode: Callable[[Tensor], Tensor]
) -> Tensor:
    """Look at a photo through the windows of a level and blend what is seen to one grid.

    The windows of one photo go through the tower together, so a photo's result does not depend on
    its neighbours.

    Args:
        image: the photo.
        level: magnification and windows.
        clip: gives patch size and normalisation.
        encode: windows ``[n, 3, H, W]`` -> ``[n, K, h, w]``; logits or features.

    Returns:
        ``[K, rows, columns]`` float32.
    """
    patch = clip.patch_size
    size = level_size((image.height, image.width), zoom=level.zoom, patch_size=patch)
    resized = image.resize((size[1], size[0]), Image.Resampling.BICUBIC)
    pixels = normalised(resized, clip.mean, clip.std)
    boxes = cover(size, window=level.window, overlap=level.overlap, patch_size=patch)
    device = next(clip.parameters()).device
    grids = []
    for start in range(0, len(boxes), WINDOWS_A_CALL):
        part = [_crop(pixels, box) for box in boxes[start : start + WINDOWS_A_CALL]]
        grids.append(encode(torch.stack(part).to(device)).float())  # of windows [n, 3, H, W]
    cells = [Box(*(int(edge) // patch for edge in box)) for box in boxes]
    return blend(torch.cat(grids), cells, size=(size[0] // patch, size[1] // patch))


def _crop(pixels: Tensor, box: Box) -> Tensor:
    top, left, height, width = (int(edge) for edge in box)
    return pixels[:, top : top + height, left : left + width]


def write_store(
    fabric: "Fabric",
    clip: DenseClip,
    text: Tensor,
    plan: Plan,
    *,
    paths: list[Path],
    params: ClipParams,
    draft: Path,
    previous: PseudoMaskStore | None,
) -> Path:
    """Run CLIP on what neither the draft nor the previous store holds.

    Processes share the shards; each shard has one writer. The fused level is made when all others
    are on disk.

    Args:
        fabric: the devices.
        clip: the frozen model, on this process's device.
        text: class embeddings, ``[C, D]``.
        plan: what to write.
        paths: file of each photo of the plan.
        params: the view levels, and how they are fused.
        draft: scratch folder of this plan.
        previous: an earlier store, or None.

    Returns:
        the finished store within ``draft``.
    """
    if fabric.global_rank == 0:
        StoreWriter(draft, plan, text=text.cpu().numpy(), previous=previous)
    fabric.barrier()
    writer = StoreWriter(draft, plan, text=text.cpu().numpy(), previous=previous)

    def look(row: int, level: str) -> Tensor:
        def encode(windows: Tensor) -> Tensor:
            return clip.patch_logits(windows, text)

        with fabric.autocast():
            return cover_features(read_image(paths[row]), params.levels[level], clip, encode)

    def fuse_levels(row: int, level: str) -> Tensor:
        fused, (rows, columns) = params.fused, plan.grids[level][row]
        assert fused is not None
        return fuse(
            read_image(paths[row]),
            [torch.from_numpy(writer.read(row, name)).to(fabric.device) for name in params.levels],
            size=(rows * fused.stride, columns * fused.stride),
            stride=fused.stride,
            radius=fused.radius,
        )

    looks = dict.fromkeys(params.levels, look)
    _fill(fabric, writer, looks, label="CLIP")
    if params.fused is not None:
        _fill(fabric, writer, {FUSED: fuse_levels}, label="fuse")
    return writer.path


def _fill(
    fabric: "Fabric",
    writer: StoreWriter,
    compute: Mapping[str, Callable[[int, str], Tensor]],
    *,
    label: str,
) -> None:
    """Write what is missing at some levels, this process's share of the shards.

    Args:
        fabric: the devices.
        writer: of the store.
        compute: for each level what gives the logits of a row.
        label: of the progress bar.
    """
    jobs = writer.pending(compute)[fabric.global_rank :: fabric.world_size]
    fabric.barrier()  # no process writes before each has listed what is missing
    total = sum(len(writer.missing(level, shard)) for level, shard in jobs)
    views = len(writer.plan.photos) * len(compute)
    log.info("%s: %d views to make; %d stand in the cache", label, total, views - total)

    def rows() -> Iterator[int]:
        for level, shard in jobs:
            missing = set(writer.missing(level, shard))

            def logits(row: int, level: str = level) -> np.ndarray:
                made: np.ndarray = compute[level](row, level).cpu().numpy()
                return made

            yield from (r for r in writer.write_shard(level, shard, logits) if r in missing)

    for _ in progress(rows(), label=label, total=total):
        pass
    fabric.barrier()


def make_store(
    fabric: "Fabric",
    clip: DenseClip,
    index: SceneIndex,
    *,
    root: Path,
    params: ClipParams,
    templates: list[str],
    out: Path,
    scratch: Path,
) -> None:
    """Bring the store at ``out`` up to date; a run that was stopped goes on where it was.

    Args:
        fabric: the devices.
        clip: the frozen model.
        index: the photos.
        root: folder of the data set.
        params: what CLIP is asked and how it looks.
        templates: sentences around a class's words.
        out: where the store belongs.
        scratch: folder for work in progress.
    """
    words = index.label_space.words(params.words)
    plan = plan_store(
        index,
        clip,
        params=params,
        words=words,
        templates=templates,
        classes=index.label_space.names,
        precision=str(fabric.strategy.precision.precision),
    )
    clip.to(fabric.device)
    text = clip.embed_text(words, templates)
    draft = scratch / f"pseudo-{plan.fingerprint()[:16]}"
    finished = write_store(
        fabric,
        clip,
        text,
        plan,
        paths=[photo.path(root) for photo in index.photos],
        params=params,
        draft=draft,
        previous=_previous(out),
    )
    if fabric.global_rank == 0:
        with atomic_path(out) as place:
            shutil.move(finished, place)  # scratch may be another file system
        remove(draft)
    fabric.barrier()


def _previous(path: Path) -> PseudoMaskStore | None:
    """The store of an earlier run, if there is a whole one."""
    try:
        return PseudoMaskStore.open(path)
    except ValueError:
        return None
