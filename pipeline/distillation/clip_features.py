"""CLIP's dense features of whole photos, kept in a scratch file during distillation."""

import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.clip.dense import DenseClip
from pipeline.clip.windows import cover_features, exposed, magnified
from pipeline.config.clip import LevelParams
from pipeline.scenes.image_io import read_image
from pipeline.system.files import check_room, remove
from pipeline.system.progress import prefetch_in_threads, progress
from pipeline.training.crops import TrainingPhoto
from pipeline.views import level_size

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True)
class FeatureGrids:
    """CLIP's dense features of each photo, on disk; a `LogitSource` like a pseudo-mask store.

    Attributes:
        features: ``[N, D, h, w]`` float16, grids in the top left corner.
        rows: key -> row of ``features``.
        sizes: ``(h, w)`` of each row's grid.
        mean: ``[D]`` float32, the average feature, which is subtracted.
    """

    features: np.ndarray
    rows: dict[str, int]
    sizes: list[tuple[int, int]]
    mean: Tensor

    def grid_size(self, key: str, level: str) -> tuple[int, int]:
        """``(h, w)`` of a photo's features; there is one level."""
        return self.sizes[self.rows[key]]

    def read_padded(self, key: str, level: str) -> np.ndarray:
        """``[D, h, w]`` float16; a copy, as the file is read-only."""
        return np.array(self.features[self.rows[key]])


def embed_photos(
    photos: Sequence[TrainingPhoto],
    clip: DenseClip,
    levels: dict[str, LevelParams],
    *,
    brightness: float | None,
    file: Path,
) -> FeatureGrids:
    """CLIP's features of every photo, summed over the levels, on the finest grid.

    Args:
        photos: the photos; their image-level labels are not used.
        clip: the frozen model.
        levels: the view levels.
        brightness: ``clip.brightness``.
        file: scratch file for the features, which may exceed the memory.
    """
    finest, *others = sorted(levels.values(), key=lambda level: level.zoom, reverse=True)
    sizes, out, total = [], None, torch.zeros(1)

    def shown(photo: TrainingPhoto) -> list[Tensor]:
        image = exposed(read_image(photo.path), brightness)
        return [magnified(image, level, patch_size=clip.patch_size) for level in (finest, *others)]

    views = progress(prefetch_in_threads(photos, shown), label="CLIP features", total=len(photos))
    for row, (first, *rest) in enumerate(views):
        target = cover_features(first, finest, clip, clip.patch_features)
        for level, pixels in zip(others, rest, strict=True):
            grid = cover_features(pixels, level, clip, clip.patch_features)[None]
            target += F.interpolate(grid, target.shape[-2:], mode="bilinear")[0]
        rows, columns = target.shape[-2:]
        if out is None:
            shape = (len(photos), len(target), *_largest_grid(photos, finest, clip.patch_size))
            remove(file)
            check_room({file: 2 * math.prod(shape)})  # a full disk would kill the process
            file.parent.mkdir(parents=True, exist_ok=True)
            out = np.lib.format.open_memmap(file, mode="w+", dtype=np.float16, shape=shape)
            with file.open("rb+") as handle:  # or a full disk would kill the process silently
                os.posix_fallocate(handle.fileno(), 0, file.stat().st_size)
        out[row, :, :rows, :columns] = target.cpu().numpy()
        sizes.append((rows, columns))
        total = total + target.mean(dim=(1, 2)).cpu()
    assert out is not None
    out.flush()
    rows_of = {photo.key: row for row, photo in enumerate(photos)}
    return FeatureGrids(out, rows_of, sizes, total / len(photos))


def _largest_grid(
    photos: Sequence[TrainingPhoto], level: LevelParams, patch_size: int
) -> tuple[int, int]:
    """Rows and columns of the largest grid."""
    sizes = [level_size(photo.size, zoom=level.zoom, patch_size=patch_size) for photo in photos]
    rows, columns = (max(sides) // patch_size for sides in zip(*sizes, strict=True))
    return rows, columns


def shared_features(fabric: "Fabric", grids: FeatureGrids | None, file: Path) -> FeatureGrids:
    """Share the features that rank zero computed with all processes.

    Args:
        fabric: the devices.
        grids: the features on rank zero, None elsewhere.
        file: file of the features, on a disk that all processes share.

    Raises:
        ValueError: the file is not there.
    """
    if fabric.world_size == 1:
        assert grids is not None
        return grids
    facts = (grids.rows, grids.sizes, grids.mean) if grids is not None else ({}, [], torch.empty(0))
    rows, sizes, mean = fabric.broadcast(facts)  # waits until the file is complete
    if not file.is_file():
        raise ValueError(f"{file}: not found on this node; all nodes must share the folder")
    return FeatureGrids(np.load(file, mmap_mode="r"), rows, sizes, mean)
