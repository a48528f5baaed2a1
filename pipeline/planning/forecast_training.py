"""Time and memory of training on this machine, from a measured step of the recipe's network.

Weights and pseudo-masks are random, because speed does not depend on them.
"""

import time
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from pipeline.config.clip import ClipParams
from pipeline.config.params import Params
from pipeline.config.views import ViewsParams
from pipeline.planning.forecast import LONG_S, Measured, clock, grids_of
from pipeline.planning.memory import IN_USE, PEAK, process_bytes, reset_peak
from pipeline.scenes.image_io import upright_size
from pipeline.segmenter.network import build_segmenter, check_crop
from pipeline.store.plan import FUSED, Grid
from pipeline.system.command import memory_hint
from pipeline.training.augment import normalisation_of
from pipeline.training.batch_loss import make_loss
from pipeline.training.crops import Batch, CropDataset, TrainingPhoto, collate
from pipeline.training.fit import train_step
from pipeline.training.optimizer import make_optimizer

if TYPE_CHECKING:
    from lightning_fabric import Fabric

CPU_PIXELS = 2**17  # of a measured crop on a CPU, where larger ones take minutes
STRIDE = 32  # pixels; sides of a measured crop are multiples of it


class RandomLogits:
    """Logits of a photo in place of a store's."""

    def __init__(self, params: ClipParams, size: tuple[int, int], classes: int, patch: int) -> None:
        self.classes = [str(number) for number in range(classes)]
        self.grids, self.fused = grids_of(size, params, patch), params.fused is not None

    @property
    def global_level(self) -> str:
        """As of a store."""
        return FUSED if self.fused else next(iter(self.grids))

    @property
    def local_levels(self) -> list[str]:
        """As of a store."""
        return [name for name in list(self.grids)[1:] if name != FUSED]

    def grid_size(self, key: str, level: str) -> Grid:
        """As of a store."""
        return self.grids[level]

    def read(self, key: str, level: str) -> np.ndarray:
        """Logits, ``[C, h, w]`` float32."""
        return self._values[level]

    read_padded = read

    @cached_property
    def _values(self) -> dict[str, np.ndarray]:
        draw = np.random.default_rng(0)
        shapes = {name: (len(self.classes), *grid) for name, grid in self.grids.items()}
        return {name: draw.random(shape, np.float32) for name, shape in shapes.items()}


def measure_step(
    fabric: "Fabric", params: Params, photo: Path, *, classes: int, patch_size: int, text_width: int
) -> Measured:
    """Seconds that a step of training takes, with the work of its loader, and its memory.

    On a CPU large crops are measured smaller and with fewer images, and scaled by their pixels.

    Args:
        fabric: the device.
        params: of the run.
        photo: a training photo.
        classes: number of classes.
        patch_size: of CLIP.
        text_width: of CLIP's text embeddings, for ``segmenter.classifier: text``.

    Raises:
        ValueError: the network does not exist or does not fit crops or memory.
    """
    on_cpu, train = fabric.device.type == "cpu", params.train
    views = _smaller(params.views) if on_cpu else params.views
    size = min(2, train.batch_size) if views is not params.views else train.batch_size
    model = build_segmenter(
        arch=params.segmenter.arch,
        encoder=params.segmenter.encoder,
        num_classes=classes,
        options=params.segmenter.options,
        text=torch.randn(classes, text_width) if params.segmenter.classifier == "text" else None,
    )
    check_crop(model, params.views.crop)
    photos = [TrainingPhoto("photo", photo, upright_size(photo), np.ones(classes, dtype=bool))]
    logits = RandomLogits(params.clip, photos[0].size, classes, patch_size)
    batch, crop_s = _batch(params, views, photos, logits, size)
    normalisation = normalisation_of(params.segmenter.normalisation)
    loss = make_loss(logits, photos, carb=params.carb, train=train, normalisation=normalisation)
    loss = loss.to(fabric.device)
    model = model.to(fabric.device).to(memory_format=torch.channels_last)
    wrapped, optimizer = fabric.setup(model.train(), make_optimizer(model, train))
    seconds, held = 0.0, None
    with memory_hint(f"lower params.yaml: train.batch_size ({train.batch_size}) or views.crop"):
        for _ in range(3):  # the first ones also warm up
            reset_peak()
            held, start = process_bytes(IN_USE), clock(fabric)
            train_step(fabric, wrapped, optimizer, loss, batch)
            seconds = clock(fabric) - start
            if seconds > LONG_S:
                break
    peak, after = process_bytes(PEAK), process_bytes(IN_USE)
    share = train.batch_size / size * _pixels(params.views) / _pixels(views)
    # Weights, gradients and optimizer do not grow with the batch.
    memory = after + round((peak - held) * share) if peak and after and held else None
    loading = crop_s * train.batch_size / max(1, train.workers)
    total = seconds * share + loading if on_cpu else max(seconds, loading)
    scaled = f", times {share:.3g}" if share != 1 else ""
    how = f"a step of {size} crops of {views.crop[1]}x{views.crop[0]}{scaled}"
    return Measured(total, how, memory)


def _batch(
    params: Params,
    views: ViewsParams,
    photos: Sequence[TrainingPhoto],
    logits: RandomLogits,
    size: int,
) -> tuple[Batch, float]:
    """A batch, and the seconds that the loader takes for a crop of the run's size."""
    local = logits.local_levels if params.train.local_term else []
    items: list[Batch] = []
    seconds = 0.0
    for own, count in ((views, size), (params.views, 1)):
        crops = CropDataset(
            photos,
            logits,
            global_level=logits.global_level,
            local_levels=local,
            views=own,
            augment=params.augment,
            seed=params.seed,
        )
        start = time.perf_counter()
        cut = [crops[position] for position in range(count)]
        seconds = (time.perf_counter() - start) / count
        items = items or cut
    return collate(items), seconds


def _pixels(views: ViewsParams) -> int:
    return views.crop[0] * views.crop[1]


def _smaller(views: ViewsParams) -> ViewsParams:
    """The views with a crop of at most ``CPU_PIXELS``."""
    parts = 1
    while _pixels(views) > parts * parts * CPU_PIXELS:
        parts += 1
    if parts == 1:
        return views

    def part(size: tuple[int, int]) -> tuple[int, int]:
        height, width = (max(STRIDE, round(side / parts / STRIDE) * STRIDE) for side in size)
        return height, width

    crop = part(views.crop)
    height, width = part(views.local_window)
    local = (min(height, crop[0]), min(width, crop[1]))
    return views.model_copy(update={"crop": crop, "local_window": local})
