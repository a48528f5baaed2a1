"""Stage 1: every photo through CLIP once, into the store."""

import logging
import math
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.clip_dense import DenseClip
from pipeline.config import ClipParams, FusedParams, LevelParams
from pipeline.edges import fuse
from pipeline.index import SceneIndex
from pipeline.pseudo_masks import asked_of_clip
from pipeline.runtime import READERS, ahead, atomic_path, fetched, progress, remove
from pipeline.scene import read_image
from pipeline.store import FUSED, Grid, Photo, Plan, PseudoMaskStore, StoreWriter
from pipeline.views import Box, blend, cover, fitted_size, level_size

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger("carb")
T = TypeVar("T")
# Raise it when views, towers, last_block, outliers, clip_dense or this file change what is stored.
MATHS = 2
WAITING_BYTES = 2**29  # of photos that are decoded and magnified ahead
PIXELS_A_CALL = 2**23  # of windows: 16 of 512 x 1024; the towers' memory grows with it


class Job(NamedTuple):
    """A row of the store that has to be made."""

    level: str
    shard: int
    row: int


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
        grids[FUSED] = [fused_grid(photo.size, params.fused) for photo in photos]
    return Plan(recipe, classes, photos, grids)


def _grid(size: tuple[int, int], level: LevelParams, patch_size: int) -> Grid:
    height, width = level_size(size, zoom=level.zoom, patch_size=patch_size)
    return height // patch_size, width // patch_size


def fused_grid(size: tuple[int, int], fused: FusedParams) -> Grid:
    """Rows and columns of a photo's fused level."""
    height, width = fitted_size(size, base_size=fused.size, stride=fused.stride)
    return height // fused.stride, width // fused.stride


def magnified(image: Image.Image, level: LevelParams, *, patch_size: int) -> Tensor:
    """A photo at the size of a level, ``[H, W, 3]`` uint8 RGB, whole patches a side."""
    height, width = level_size((image.height, image.width), zoom=level.zoom, patch_size=patch_size)
    return torch.from_numpy(np.array(image.resize((width, height), Image.Resampling.BICUBIC)))


def window_batches(pixels: Tensor, boxes: Sequence[Box], clip: DenseClip) -> Iterator[Tensor]:
    """Windows of a magnified photo as CLIP takes them, so many a call as memory allows.

    Args:
        pixels: ``[H, W, 3]`` uint8, on CLIP's device.
        boxes: windows of one size, in its pixels.
        clip: gives the normalisation.

    Yields:
        ``[n, 3, h, w]`` float32.
    """
    mean, std = (
        pixels.new_tensor(v, dtype=torch.float32)[:, None, None] for v in (clip.mean, clip.std)
    )
    ready = (pixels.permute(2, 0, 1).float() / 255 - mean) / std  # [3, H, W]
    count = max(1, PIXELS_A_CALL // int(boxes[0].height * boxes[0].width))
    for start in range(0, len(boxes), count):
        yield torch.stack([_crop(ready, box) for box in boxes[start : start + count]])


def _crop(pixels: Tensor, box: Box) -> Tensor:
    top, left, height, width = (int(edge) for edge in box)
    return pixels[:, top : top + height, left : left + width]


@torch.no_grad()
def cover_features(
    pixels: Tensor, level: LevelParams, clip: DenseClip, encode: Callable[[Tensor], Tensor]
) -> Tensor:
    """Look at a photo through the windows of a level and blend what is seen to one grid.

    The windows of one photo go through the tower together, so a photo's result does not depend on
    its neighbours.

    Args:
        pixels: the photo as `magnified` gives it.
        level: the windows.
        clip: gives patch size and normalisation.
        encode: windows ``[n, 3, H, W]`` -> ``[n, K, h, w]``; logits or features.

    Returns:
        ``[K, rows, columns]`` float32, on CLIP's device.
    """
    patch, (height, width) = clip.patch_size, pixels.shape[:2]
    boxes = cover((height, width), window=level.window, overlap=level.overlap, patch_size=patch)
    moved = pixels.to(clip.device, non_blocking=True)
    grids = [encode(windows).float() for windows in window_batches(moved, boxes, clip)]
    cells = [Box(*(int(edge) // patch for edge in box)) for box in boxes]
    return blend(torch.cat(grids), cells, size=(height // patch, width // patch))


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
    if not draft.is_dir():
        raise ValueError(f"{draft} is not there on this node; all nodes must share the folder")
    writer = StoreWriter(draft, plan, text=text.cpu().numpy(), previous=previous)

    def show(job: Job) -> Tensor:
        pixels = magnified(
            read_image(paths[job.row]), params.levels[job.level], patch_size=clip.patch_size
        )
        return pixels.pin_memory() if fabric.device.type == "cuda" else pixels

    def look(job: Job, pixels: Tensor) -> Tensor:
        def encode(windows: Tensor) -> Tensor:
            return clip.patch_logits(windows, text)

        with fabric.autocast():
            return cover_features(pixels, params.levels[job.level], clip, encode)

    cells = max(math.prod(plan.shape(level)[2:]) for level in params.levels)
    threads = max(1, min(READERS, WAITING_BYTES // (2 * 3 * clip.patch_size**2 * cells)))
    _fill(fabric, writer, list(params.levels), show, look, label="CLIP", threads=threads)
    if params.fused is not None:
        _fuse_levels(fabric, writer, paths, params)
    return writer.path


def _fuse_levels(
    fabric: "Fabric", writer: StoreWriter, paths: list[Path], params: ClipParams
) -> None:
    """Make the fused level of all others, which are on disk."""
    fused = params.fused
    assert fused is not None

    def read(job: Job) -> tuple[Image.Image, list[Tensor]]:
        grids = [torch.from_numpy(writer.read(job.row, name)) for name in params.levels]
        return read_image(paths[job.row]), grids

    def fuse_grids(job: Job, found: tuple[Image.Image, list[Tensor]]) -> Tensor:
        photo, grids = found
        rows, columns = writer.plan.grids[FUSED][job.row]
        return fuse(
            photo,
            [grid.to(fabric.device) for grid in grids],
            size=(rows * fused.stride, columns * fused.stride),
            stride=fused.stride,
            radius=fused.radius,
        )

    _fill(fabric, writer, [FUSED], read, fuse_grids, label="fuse", threads=READERS)


def _fill(
    fabric: "Fabric",
    writer: StoreWriter,
    levels: list[str],
    read: Callable[[Job], T],
    compute: Callable[[Job, T], Tensor],
    *,
    label: str,
    threads: int,
) -> None:
    """Write what is missing at some levels, this process's share of the shards.

    Args:
        fabric: the devices.
        writer: of the store.
        levels: which to write.
        read: what a row needs; runs in threads, ahead of its use.
        compute: the logits of a row, from what was read.
        label: of the progress bar.
        threads: how many rows are read at a time.
    """
    shards = writer.pending(levels)[fabric.global_rank :: fabric.world_size]
    fabric.barrier()  # no process writes before each has listed what is missing
    jobs = [Job(*place, row) for place in shards for row in writer.missing(*place)]
    views = len(writer.plan.photos) * len(levels)
    own = torch.tensor(len(jobs), device=fabric.device)
    new = int(cast("Tensor", fabric.all_reduce(own, reduce_op="sum")))
    log.info("%s: %d views to make; %d stand in the cache", label, new, views - new)
    todo = ahead(jobs, lambda job: (job, read(job)), threads=threads)
    made = fetched(compute(job, found).half() for job, found in todo)

    def rows() -> Iterator[int]:
        new = {(job.level, job.row) for job in jobs}
        for level, shard in shards:
            written = writer.write_shard(level, shard, lambda row: next(made).numpy())
            yield from (row for row in written if (level, row) in new)

    for _ in progress(rows(), label=label, total=len(jobs)):
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
