"""Training crops: global and local views of an image with CLIP's logits, as batches."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pipeline.config.views import AugmentParams, ViewsParams
from pipeline.scenes.image_io import read_image
from pipeline.system.stop import ignore_signals_of_others
from pipeline.training.augment import distort
from pipeline.views import (
    Box,
    View,
    cut_image,
    draw_global_view,
    draw_local_box,
    grid_positions,
    sample_grid,
    sub_view,
)

if TYPE_CHECKING:
    from lightning_fabric import Fabric

T = TypeVar("T")
KEPT_BYTES = 2**28  # of decoded images, and as many of logits, in each loader process


@dataclass(frozen=True)
class TrainingPhoto:
    """A training image: key, file, ``(height, width)``, and its image-level labels ``[C]`` bool."""

    key: str
    path: Path
    size: tuple[int, int]
    image_labels: np.ndarray


class LogitSource(Protocol):
    """CLIP's output per image: a `PseudoMaskStore`, or features for distillation."""

    def grid_size(self, key: str, level: str) -> tuple[int, int]:
        """``(h, w)`` of an image's grid."""
        ...

    def read_padded(self, key: str, level: str) -> np.ndarray:
        """``[C, h, w]`` or larger, the grid in the top left corner."""
        ...


class LabelSource(LogitSource, Protocol):
    """Logits to learn from: a `PseudoMaskStore`, or its logits with corrections."""

    classes: list[str]

    @property
    def global_level(self) -> str:
        """The level that global views use."""
        ...

    @property
    def local_levels(self) -> list[str]:
        """The levels that local views use."""
        ...

    def read(self, key: str, level: str) -> np.ndarray:
        """Logits of an image, ``[C, h, w]`` float32, a grid that spans it."""
        ...


@dataclass
class SampledLogits:
    """Grids of logits, and the positions at which crops sample them.

    Attributes:
        grids: ``[B, C, gh, gw]`` float16.
        rows: ``[B, h]`` float32, in cells.
        columns: ``[B, w]`` float32, in cells.
    """

    grids: Tensor
    rows: Tensor
    columns: Tensor

    def sample(self) -> Tensor:
        """Logits at the positions: ``[B, C, h, w]`` float32."""
        return sample_grid(self.grids.float(), self.rows, self.columns)

    def present(self, image_labels: Tensor) -> Tensor:
        """Logits at the positions, ``-inf`` for absent classes: ``[B, C, h, w]`` float32."""
        return self.sample().masked_fill(~image_labels[:, :, None, None], -torch.inf)

    def hard_masks(self, image_labels: Tensor) -> Tensor:
        """Pseudo-masks: arg-max over the present classes, ``[B, h, w]`` int64."""
        # faster than argmax, see hard_mask
        return self.present(image_labels).max(dim=1).indices


@dataclass
class Batch:
    """The data of one step.

    Attributes:
        images: crops, ``[B, 3, H, W]`` uint8 RGB.
        image_labels: classes present, ``[B, C]`` bool.
        global_logits: the global level on the crops.
        local_logits: a local level on the local windows, or None if there is no local view.
        local_boxes: the windows, whole pixels of the crop.
        keys: the images' keys.
    """

    images: Tensor
    image_labels: Tensor
    global_logits: SampledLogits
    local_logits: SampledLogits | None
    local_boxes: list[Box]
    keys: list[str]

    def pin_memory(self) -> "Batch":
        """Called by the DataLoader if the model is on a GPU."""
        return self._each(lambda tensor: tensor.pin_memory())

    def to(self, device: torch.device) -> "Batch":
        """Move to a device asynchronously."""
        return self._each(lambda tensor: tensor.to(device, non_blocking=True))

    def _each(self, change: Any) -> "Batch":
        global_logits, local_logits = (
            None if cut is None else SampledLogits(*(change(t) for t in vars(cut).values()))
            for cut in (self.global_logits, self.local_logits)
        )
        assert global_logits is not None
        images, labels = change(self.images), change(self.image_labels)
        return Batch(images, labels, global_logits, local_logits, self.local_boxes, self.keys)


def generator_at(seed: int, stream: int, position: int) -> torch.Generator:
    """A generator for one position of a random stream.

    Randomness is a function of the position, not of earlier draws: a resumed run and any number of
    workers or devices draw the same.
    """
    mixed = np.random.SeedSequence([seed, stream, position]).generate_state(1, np.uint64)[0]
    return torch.Generator().manual_seed(int(mixed >> 1))


class CropDataset(Dataset[Batch]):
    """An endless stream of crops; item ``n`` is the n-th crop of the run, as a batch of one.

    Each epoch uses every image once, in a random order of its own.

    Args:
        photos: the training images.
        grids: CLIP's output for them.
        global_level: level read on the whole crop.
        local_levels: levels that local windows draw from; none: no local view.
        views: sizes and scales.
        augment: photometric ranges.
        seed: of all randomness.
        grid_stride: crop pixels per sampled position.
    """

    def __init__(
        self,
        photos: Sequence[TrainingPhoto],
        grids: LogitSource,
        *,
        global_level: str,
        local_levels: Sequence[str],
        views: ViewsParams,
        augment: AugmentParams,
        seed: int,
        grid_stride: int = 1,
    ) -> None:
        self.photos, self.grids = photos, grids
        self.global_level, self.local_levels = global_level, local_levels
        self.views, self.augment, self.seed, self.stride = views, augment, seed, grid_stride
        self._epoch, self._order = -1, torch.empty(0)

    @cached_property
    def _read_photo(self) -> Callable[[Path], Image.Image]:
        """Reads an image; keeps all of them if they fit."""
        return _kept(read_image, size=sum(4 * math.prod(photo.size) for photo in self.photos))

    @cached_property
    def _read_grid(self) -> Callable[[str, str], np.ndarray]:
        """Reads logits; keeps all of them if they fit."""
        grid = self.grids.read_padded(self.photos[0].key, self.global_level)
        levels = 1 + len(self.local_levels)
        return _kept(self.grids.read_padded, size=len(self.photos) * levels * grid.nbytes)

    def photo_at(self, position: int) -> TrainingPhoto:
        """The image of the crop at a position of the stream."""
        epoch, place = divmod(position, len(self.photos))
        if epoch != self._epoch:
            generator = generator_at(self.seed, 0, epoch)
            self._epoch = epoch
            self._order = torch.randperm(len(self.photos), generator=generator)
        return self.photos[int(self._order[place])]

    def __getitem__(self, position: int) -> Batch:
        """Cut the crop at a position of the stream."""
        photo, generator = self.photo_at(position), generator_at(self.seed, 1, position)
        view = draw_global_view(
            photo.size,
            base_size=self.views.base_size,
            scale=self.views.scale,
            crop=self.views.crop,
            flip=self.views.flip,
            generator=generator,
        )
        picture = cut_image(self._read_photo(photo.path), view)
        image = torch.from_numpy(np.array(picture)).permute(2, 0, 1)  # [3, H, W]
        local_logits, boxes = None, []
        if self.local_levels:
            box = draw_local_box(self.views.crop, self.views.local_window, generator=generator)
            level = self.local_levels[
                int(torch.randint(len(self.local_levels), (), generator=generator))
            ]
            local_logits, boxes = self._cut(photo, sub_view(view, box), level), [box]
        return Batch(
            images=distort(image, self.augment, generator=generator)[None],
            image_labels=torch.from_numpy(photo.image_labels)[None],
            global_logits=self._cut(photo, view, self.global_level),
            local_logits=local_logits,
            local_boxes=boxes,
            keys=[photo.key],
        )

    def _cut(self, photo: TrainingPhoto, view: View, level: str) -> SampledLogits:
        size = (view.size[0] // self.stride, view.size[1] // self.stride)
        positions = grid_positions(
            View(view.box, size, view.flipped), photo.size, self.grids.grid_size(photo.key, level)
        )
        grid = torch.from_numpy(self._read_grid(photo.key, level))
        return SampledLogits(grid[None], positions[0][None], positions[1][None])


def _kept(read: Callable[..., T], *, size: int) -> Callable[..., T]:
    """A reader that keeps what it read if all of it fits: reading takes most of a crop's time."""
    return lru_cache(maxsize=None if size <= KEPT_BYTES else 0)(read)


def _stack(cuts: Sequence[SampledLogits]) -> SampledLogits:
    """Join samples; grids are padded to the largest, outside of all sampled positions."""
    height = max(cut.grids.shape[2] for cut in cuts)
    width = max(cut.grids.shape[3] for cut in cuts)
    grids = [
        F.pad(cut.grids, (0, width - cut.grids.shape[3], 0, height - cut.grids.shape[2]))
        for cut in cuts
    ]
    return SampledLogits(
        torch.cat(grids),
        torch.cat([cut.rows for cut in cuts]),
        torch.cat([cut.columns for cut in cuts]),
    )


def collate(items: Sequence[Batch]) -> Batch:
    """Join batches of one."""
    local_logits = [item.local_logits for item in items if item.local_logits is not None]
    return Batch(
        images=torch.cat([item.images for item in items]),
        image_labels=torch.cat([item.image_labels for item in items]),
        global_logits=_stack([item.global_logits for item in items]),
        local_logits=_stack(local_logits) if local_logits else None,
        local_boxes=[box for item in items for box in item.local_boxes],
        keys=[key for item in items for key in item.keys],
    )


def make_loader(
    fabric: "Fabric", crops: CropDataset, steps: range, *, batch_size: int, workers: int
) -> "DataLoader[Batch]":
    """This process's share of the batch of each step, whatever the number of workers."""
    rank, world = fabric.global_rank, fabric.world_size
    positions = [range(step * batch_size + rank, (step + 1) * batch_size, world) for step in steps]
    return DataLoader(
        crops,
        batch_sampler=positions,  # type: ignore[arg-type]  # lists would take much more memory
        num_workers=workers,
        collate_fn=collate,
        worker_init_fn=ignore_signals_of_others,
        pin_memory=fabric.device.type == "cuda",
        persistent_workers=workers > 0,
        prefetch_factor=4 if workers else None,
    )
