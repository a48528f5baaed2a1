"""Distillation of CLIP into the encoder: initial weights without pretrained ones.

The encoder learns to predict CLIP's dense features; labels are not used. The paper starts from
ImageNet instead (``segmenter.encoder_weights: imagenet``).
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.clip.dense import load_clip
from pipeline.config.clip import check_knows_photos
from pipeline.config.distillation import DistillationParams
from pipeline.config.segmenter import SegmenterParams
from pipeline.config.train import TrainingSections
from pipeline.config.views import AugmentParams, ViewsParams
from pipeline.distillation.clip_features import FeatureGrids, embed_photos, shared_features
from pipeline.scenes.index import SceneIndex
from pipeline.segmenter.encoder import imagenet_encoder, load_encoder, trained_with
from pipeline.segmenter.network import build_segmenter, check_batch_norm, check_crop
from pipeline.system.devices import lock_on_rank_zero, start_fabric
from pipeline.system.distributed import (
    all_reduce_sum,
    batch_norm_size,
    check_shares,
    convert_sync_batchnorm,
)
from pipeline.system.files import remove
from pipeline.system.progress import progress
from pipeline.training.augment import IMAGENET, Normalisation, normalisation_of, normalise
from pipeline.training.crops import CropDataset, TrainingPhoto, make_loader
from pipeline.training.non_finite import check_weights
from pipeline.training.optimizer import one_cycle_lr, set_lr

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger("carb")
STRIDE = 4  # pixels per position of the student's output
WIDTH = 128  # channels of its feature pyramid


class EncoderSettings(TrainingSections):
    """What the stage `encoder` reads of params.yaml."""

    distillation: DistillationParams


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


def initial_encoder(index: SceneIndex, params: EncoderSettings, *, scratch: Path) -> nn.Module:
    """The segmenter's initial encoder, from the source that ``segmenter.encoder_weights`` names.

    Args:
        index: the photos; those for training are used if the source is CLIP.
        params: the sections that this stage reads.
        scratch: folder for CLIP's features.

    Raises:
        ValueError: the weights cannot be loaded or do not fit the encoder.
    """
    source = params.segmenter.encoder_weights
    torch.manual_seed(params.distillation.seed)
    if source == "imagenet":
        _check_normalisation(params.segmenter)
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
    check_crop(model, params.views.crop)
    encoder: nn.Module = model.encoder  # type: ignore[assignment]
    if source == "clip":
        _distil_clip(encoder, index, params, scratch=scratch)
    elif source != "none":
        load_encoder(model, Path(source))
    return encoder


def _check_normalisation(segmenter: SegmenterParams) -> None:
    """Warn if the ImageNet weights were trained with another normalisation."""
    known, ours = trained_with(segmenter.encoder), normalisation_of(segmenter.normalisation)
    if known is not None and not np.allclose(known, ours, rtol=0, atol=0.005):
        log.warning(
            "params.yaml: segmenter.normalisation: the ImageNet weights of %s were trained with "
            "mean %s and std %s, this run uses mean %s and std %s; set it to the former",
            *(segmenter.encoder, *map(list, known), *map(list, ours)),
        )


def _distil_clip(
    encoder: nn.Module, index: SceneIndex, params: EncoderSettings, *, scratch: Path
) -> None:
    check_knows_photos(params.clip, params.dataset.name)
    fabric = start_fabric(params.train.precision)
    check_batch_norm(
        Student(encoder, 1),
        batch_size=batch_norm_size(params.distillation.batch_size),
        crop=params.views.crop,
        name="distillation.batch_size",
    )
    check_shares(fabric, params.distillation.batch_size, "distillation.batch_size")
    _check_maps(encoder, params)
    clip = load_clip(
        params.clip.model,
        params.clip.pretrained,
        dense=params.clip.dense,
        repair=params.clip.repair_outliers,
        window_share=params.clip.window_share,
    ).to(fabric.device)
    root = Path(params.dataset.root)
    unknown = np.zeros(0, dtype=bool)
    photos = [
        TrainingPhoto(photo.key, photo.path(root), photo.size, unknown)
        for photo in index.of_split("train")
    ]
    file = scratch / "clip_features.npy"
    with lock_on_rank_zero(fabric, file):
        grids = None
        if fabric.global_rank == 0:
            with fabric.autocast():
                grids = embed_photos(
                    photos,
                    clip,
                    params.clip.levels,
                    brightness=params.clip.brightness,
                    file=file,
                )
        grids = shared_features(fabric, grids, file)
        learn_encoder(
            fabric,
            encoder,
            photos,
            grids,
            params.distillation,
            views=params.views,
            augment=params.augment,
            workers=params.train.workers,
            normalisation=normalisation_of(params.segmenter.normalisation),
        )
        fabric.barrier()
        if fabric.global_rank == 0:
            remove(file)


@torch.no_grad()
def _check_maps(encoder: nn.Module, params: EncoderSettings) -> None:
    """Raise ValueError, before CLIP runs, if the encoder lacks the maps that the student needs."""
    height, width = params.views.crop
    maps = encoder.eval()(torch.zeros(1, 3, height, width))
    found = [tuple(one.shape[-2:]) for one in maps[2:]]
    if found[:1] != [(height // STRIDE, width // STRIDE)]:
        raise ValueError(
            f"params.yaml: segmenter.encoder '{params.segmenter.encoder}' has no feature map "
            f"of a quarter of views.crop (found: {found}), which segmenter.encoder_weights: clip "
            f"needs; choose another encoder, or set segmenter.encoder_weights to imagenet"
        )


def learn_encoder(
    fabric: "Fabric",
    encoder: nn.Module,
    photos: Sequence[TrainingPhoto],
    grids: FeatureGrids,
    params: DistillationParams,
    *,
    views: ViewsParams,
    augment: AugmentParams,
    workers: int,
    normalisation: Normalisation = IMAGENET,
) -> nn.Module:
    """Train the encoder to predict CLIP's dense features (loss: 1 - cosine similarity).

    Args:
        fabric: the devices.
        encoder: an smp encoder, changed in place; returned in eval mode.
        photos, grids: the training images, and CLIP's features of them.
        params: optimisation.
        views: sizes of the crops, as in training.
        augment: photometric ranges.
        workers: loader processes.
        normalisation: of the crops, as in training.
    """
    torch.manual_seed(params.seed)
    student = Student(encoder, len(grids.mean)).to(memory_format=torch.channels_last)
    convert_sync_batchnorm(student, fabric)
    if fabric.global_rank > 0:  # dropout masks of its own
        torch.manual_seed(params.seed + fabric.global_rank)
    optimizer = torch.optim.AdamW(
        student.parameters(), lr=params.lr, weight_decay=params.weight_decay
    )
    wrapped, optimizer = fabric.setup(student.train(), optimizer)
    mean = grids.mean[:, None, None].to(fabric.device)
    crops = CropDataset(
        photos,
        grids,
        global_level="features",
        local_levels=[],
        views=views,
        augment=augment,
        seed=params.seed,
        grid_stride=STRIDE,
    )
    size = params.batch_size
    loader = make_loader(fabric, crops, range(params.steps), batch_size=size, workers=workers)
    shown = progress(loader, label="encoder", total=params.steps, unit="steps", images=size)
    for step, batch in enumerate(shown):
        set_lr(optimizer, one_cycle_lr(step, steps=params.steps, lr=params.lr))
        moved = batch.to(fabric.device)
        found = wrapped(normalise(moved.images, normalisation)).float()
        loss = (1 - F.cosine_similarity(found, moved.global_logits.sample() - mean, dim=1)).mean()
        optimizer.zero_grad(set_to_none=True)
        fabric.backward(loss)
        optimizer.step()
        if (step + 1) % 100 == 0:
            mean_loss = float(all_reduce_sum(loss)) / fabric.world_size
            log.info("encoder: step %d, 1 - cosine %.4f", step + 1, mean_loss)
    check_weights(fabric, student, params.steps, lr="distillation.lr")
    return encoder.eval()
