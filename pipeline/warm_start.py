"""A start for the encoder where no other weights are at hand: it learns CLIP's own dense features.

No label of any kind is used: the target is what CLIP sees at each place, so any photos will do. The
paper starts from ImageNet instead (``segmenter.encoder_weights: imagenet``).
"""

import logging
import math
import os
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.augment import normalise
from pipeline.batches import Crops, Steps, TrainingPhoto, make_loader
from pipeline.clip_dense import DenseClip, load_clip
from pipeline.config import AugmentParams, LevelParams, Params, ViewsParams, WarmStartParams
from pipeline.disk import check_room
from pipeline.encoders import imagenet_encoder, load_encoder
from pipeline.files import locked, remove
from pipeline.finite import check_weights
from pipeline.index import SceneIndex
from pipeline.network import build_segmenter
from pipeline.processes import as_one_process, check_shares
from pipeline.runtime import ahead, progress, start_fabric
from pipeline.scene import read_image
from pipeline.schedules import one_cycle_lr, set_lr
from pipeline.windows import cover_features, magnified
from pipeline.world import world_sum

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger("carb")
STRIDE = 4  # pixels a position of the student's output
WIDTH = 128  # channels of its pyramid


@dataclass(frozen=True)
class FeatureGrids:
    """CLIP's dense features of each photo, on disk; serves `Crops` like a pseudo-mask store.

    Attributes:
        features: ``[N, D, h, w]`` float16, grids in the top left corner.
        rows: key -> row of ``features``.
        sizes: ``(h, w)`` of each row's grid.
        mean: ``[D]`` float32, the average feature: what all places share says nothing.
    """

    features: np.ndarray
    rows: dict[str, int]
    sizes: list[tuple[int, int]]
    mean: Tensor

    def grid_size(self, key: str, level: str) -> tuple[int, int]:
        """``(h, w)`` of a photo's features; there is one level."""
        return self.sizes[self.rows[key]]

    def read_padded(self, key: str, level: str) -> np.ndarray:
        """``[D, h, w]`` float16; a copy, for the file is read only."""
        return np.array(self.features[self.rows[key]])


class Student(nn.Module):
    """The encoder under a small feature pyramid that predicts CLIP's features.

    Args:
        encoder: an smp encoder.
        dim: D, the width of CLIP's features.
    """

    def __init__(self, encoder: nn.Module, dim: int) -> None:
        super().__init__()
        self.encoder = encoder
        channels: Sequence[int] = encoder.out_channels  # type: ignore[assignment]
        self.lateral = nn.ModuleList(nn.Conv2d(c, WIDTH, 1) for c in channels[2:])
        self.head = nn.Sequential(
            nn.Conv2d(WIDTH, WIDTH, 3, padding=1),
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.Conv2d(WIDTH, dim, 1),
        )

    def forward(self, images: Tensor) -> Tensor:
        """``[B, 3, H, W]`` -> ``[B, D, H / 4, W / 4]``."""
        maps = self.encoder(images)[2:]  # strides 4, 8, ...
        total: Tensor | None = None
        for level, lateral in zip(reversed(maps), reversed(self.lateral), strict=True):
            own = lateral(level)
            if total is not None:
                own = own + F.interpolate(total, own.shape[-2:], mode="bilinear")
            total = own
        result: Tensor = self.head(total)
        return result


def first_encoder(index: SceneIndex, params: Params, *, scratch: Path) -> nn.Module:
    """The encoder that the segmenter starts from, as ``segmenter.encoder_weights`` says.

    Args:
        index: the photos; the training ones are learned from if the weights are to come from CLIP.
        params: all parameters.
        scratch: folder for CLIP's features.

    Raises:
        ValueError: the weights cannot be had or do not fit the encoder.
    """
    source = params.segmenter.encoder_weights
    torch.manual_seed(params.warm_start.seed)
    if source == "imagenet":
        return imagenet_encoder(
            params.segmenter.encoder, arch=params.segmenter.arch, options=params.segmenter.options
        )
    model = build_segmenter(
        arch=params.segmenter.arch,
        encoder=params.segmenter.encoder,
        num_classes=len(index.label_space.classes),
        options=params.segmenter.options,
        text=None,
    )
    encoder: nn.Module = model.encoder  # type: ignore[assignment]
    if source == "clip":
        _learn_from_clip(encoder, index, params, scratch=scratch)
    elif source != "none":
        load_encoder(model, Path(source))
    return encoder


def _learn_from_clip(
    encoder: nn.Module, index: SceneIndex, params: Params, *, scratch: Path
) -> None:
    fabric = start_fabric(params.train.precision)
    clip = load_clip(
        params.clip.model,
        params.clip.pretrained,
        dense=params.clip.dense,
        repair=params.clip.repair_outliers,
    ).to(fabric.device)
    root = Path(params.dataset.root)
    unknown = np.zeros(0, dtype=bool)
    photos = [
        TrainingPhoto(photo.key, photo.path(root), photo.size, unknown)
        for photo in index.of_split("train")
    ]
    file = scratch / "clip_features.npy"
    with locked(file) if fabric.global_rank == 0 else nullcontext():
        grids = None
        if fabric.global_rank == 0:
            with fabric.autocast():
                grids = embed_photos(photos, clip, params.clip.levels, file=file)
        grids = _shared(fabric, grids, file)
        learn_encoder(
            fabric,
            encoder,
            photos,
            grids,
            params.warm_start,
            views=params.views,
            augment=params.augment,
            workers=params.train.workers,
        )
        fabric.barrier()
        if fabric.global_rank == 0:
            remove(file)


def _shared(fabric: "Fabric", grids: FeatureGrids | None, file: Path) -> FeatureGrids:
    """The features that the first process made, for all processes."""
    if fabric.world_size == 1:
        assert grids is not None
        return grids
    facts = (grids.rows, grids.sizes, grids.mean) if grids is not None else ({}, [], torch.empty(0))
    rows, sizes, mean = fabric.broadcast(facts)  # comes when the file is whole
    if not file.is_file():
        raise ValueError(f"{file} is not there on this node; all nodes must share the folder")
    return FeatureGrids(np.load(file, mmap_mode="r"), rows, sizes, mean)


def embed_photos(
    photos: Sequence[TrainingPhoto],
    clip: DenseClip,
    levels: dict[str, LevelParams],
    *,
    file: Path,
) -> FeatureGrids:
    """Look at every photo with CLIP at every level; the sum of the levels, on the finest grid.

    Args:
        photos: the photos; their image-level labels are not looked at.
        clip: the frozen model.
        levels: the view levels.
        file: scratch file that holds the features (they may exceed the memory).
    """
    finest, *others = sorted(levels.values(), key=lambda level: level.zoom, reverse=True)
    sizes, out, total = [], None, torch.zeros(1)

    def shown(photo: TrainingPhoto) -> list[Tensor]:
        image = read_image(photo.path)
        return [magnified(image, level, patch_size=clip.patch_size) for level in (finest, *others)]

    views = progress(ahead(photos, shown), label="CLIP features", total=len(photos))
    for row, (photo, (first, *rest)) in enumerate(zip(photos, views, strict=True)):
        target = cover_features(first, finest, clip, clip.patch_features)
        for level, pixels in zip(others, rest, strict=True):
            grid = cover_features(pixels, level, clip, clip.patch_features)[None]
            target += F.interpolate(grid, target.shape[-2:], mode="bilinear")[0]
        rows, columns = target.shape[-2:]
        if out is None:
            largest = _largest_grid(photos, target.shape, photo.size)
            shape = (len(photos), *largest)
            remove(file)
            check_room({file: 2 * math.prod(shape)})  # writing beyond would end the process
            file.parent.mkdir(parents=True, exist_ok=True)
            out = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)
            with file.open("rb+") as handle:  # or a full disk would end the process without a word
                os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)
        out[row, :, :rows, :columns] = target.cpu().numpy()
        sizes.append((rows, columns))
        total = total + target.mean(dim=(1, 2)).cpu()
    assert out is not None
    out.flush()
    rows_of = {photo.key: row for row, photo in enumerate(photos)}
    return FeatureGrids(out, rows_of, sizes, total / len(photos))


def _largest_grid(
    photos: Sequence[TrainingPhoto], grid: torch.Size, size: tuple[int, int]
) -> tuple[int, int, int]:
    """A grid that holds every photo, from one photo's grid and size; one cell for rounding."""
    rows, columns = (
        1 + max(-(-photo.size[axis] * grid[axis + 1] // size[axis]) for photo in photos)
        for axis in (0, 1)
    )
    return grid[0], rows, columns


def learn_encoder(
    fabric: "Fabric",
    encoder: nn.Module,
    photos: Sequence[TrainingPhoto],
    grids: FeatureGrids,
    params: WarmStartParams,
    *,
    views: ViewsParams,
    augment: AugmentParams,
    workers: int,
) -> nn.Module:
    """Train the encoder to see what CLIP sees.

    Args:
        fabric: the devices.
        encoder: an smp encoder, changed in place.
        photos: the photos.
        grids: CLIP's features of them.
        params: optimisation.
        views: sizes of the crops, as in training.
        augment: photometric ranges.
        workers: processes that cut crops.

    Returns:
        the encoder, in eval mode.
    """
    check_shares(fabric, params.batch_size, "warm_start.batch_size")
    torch.manual_seed(params.seed)
    student = Student(encoder, len(grids.mean)).to(memory_format=torch.channels_last)
    as_one_process(student, fabric)
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=params.lr, weight_decay=params.weight_decay
    )
    wrapped, optimizer = fabric.setup(student.train(), optimizer)
    mean = grids.mean[:, None, None].to(fabric.device)
    crops = Crops(
        photos,
        grids,
        near="features",
        far=[],
        views=views,
        augment=augment,
        seed=params.seed,
        grid_stride=STRIDE,
    )
    steps = Steps(
        start=0,
        stop=params.steps,
        batch_size=params.batch_size,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )
    loader = make_loader(crops, steps, workers=workers, pin=fabric.device.type == "cuda")
    for step, batch in enumerate(progress(loader, label="encoder", total=params.steps)):
        set_lr(optimizer, one_cycle_lr(step, steps=params.steps, lr=params.lr))
        moved = batch.to(fabric.device)
        found = wrapped(normalise(moved.images)).float()
        loss = (1 - F.cosine_similarity(found, moved.near.sample() - mean, dim=1)).mean()
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        optimizer.step()
        if (step + 1) % 100 == 0:
            mean_loss = float(world_sum(loss)) / fabric.world_size
            log.info("encoder: step %d, 1 - cosine %.4f", step + 1, mean_loss)
    check_weights(fabric, student, params.steps, lr="warm_start.lr")
    return encoder.eval()
