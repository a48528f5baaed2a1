"""What a batch costs: both views' pseudo-masks against the segmenter's logits."""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from pipeline.carb import CarbLoss, CarbTerms
from pipeline.config.params import Params
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.store.reader import PseudoMaskStore
from pipeline.training.augment import IMAGENET, Normalisation, normalise
from pipeline.training.crops import Batch, TrainingPhoto
from pipeline.training.dice import dice_loss
from pipeline.views import Box

COUNTED_PHOTOS = 20_000  # at most, for the frequency of classes
_NO_WINDOW = Box(0, 0, 1, 1)


def class_frequency(
    store: PseudoMaskStore, photos: Sequence[TrainingPhoto], levels: Sequence[str]
) -> Tensor:
    """Share of each class in the pseudo-masks of the training photos, ``[C]`` float64.

    Counted on the patch grids: cheap, and as good an estimate. Of more than ``COUNTED_PHOTOS``
    photos every second, third, ... counts: a run on millions starts as soon as one on thousands.
    """
    counts = torch.zeros(len(store.classes), dtype=torch.float64)
    for photo in photos[:: max(1, math.ceil(len(photos) / COUNTED_PHOTOS))]:
        absent = torch.from_numpy(~photo.image_labels)[:, None, None]
        for level in levels:
            logits = torch.from_numpy(store.read(photo.key, level))
            # argmax(dim=0) is several times as slow on a CPU
            classes = logits.masked_fill(absent, -torch.inf).max(dim=0).indices
            counts += torch.bincount(classes.flatten(), minlength=len(counts)) / classes.numel()
    return counts / counts.sum()


def class_weights(frequency: Tensor, power: float) -> Tensor | None:
    """Weight of each class in the loss: frequency to the power ``-power``; None at 0 (paper)."""
    if power == 0:
        return None
    return frequency.clamp_min(1e-4).pow(-power).float()


def make_loss(params: Params, store: PseudoMaskStore, photos: Sequence[TrainingPhoto]) -> CarbLoss:
    """The CARB loss as the parameters say."""
    power, steps = params.train.class_weight_power, params.train.steps
    levels = (
        [store.global_level, *store.local_levels]
        if params.train.local_term
        else [store.global_level]
    )
    frequency = class_frequency(store, photos, levels) if power else torch.ones(1)
    return CarbLoss(
        tau=params.carb.tau,
        warmup_steps=params.carb.warmup_of(steps) if params.carb.enabled else steps,
        base=params.carb.base,
        queue_size=params.carb.queue_size,
        weight=params.carb.weight,
        class_weights=class_weights(frequency, power),
        floor=params.carb.floor,
    )


def loss_of(
    batch: Batch,
    model: nn.Module,
    carb: CarbLoss,
    *,
    dice: float = 0.0,
    normalisation: Normalisation = IMAGENET,
) -> CarbTerms:
    """One forward pass: both views' pseudo-masks against the same logits.

    Args:
        batch: what to learn from.
        model: the segmenter.
        carb: the loss.
        dice: weight of the Dice loss of the global view, added to the total.
        normalisation: of the images, as the encoder knows it.
    """
    with torch.no_grad():
        global_masks = batch.global_logits.hard_masks(batch.image_labels)
        if batch.local_logits is not None:
            local_masks = batch.local_logits.hard_masks(batch.image_labels)
    logits = model(normalise(batch.images, normalisation))
    if batch.local_logits is None:  # no local view: an empty window, whose terms are 0
        local_masks = global_masks.new_full((len(global_masks), 1, 1), IGNORE_INDEX)
    boxes = batch.local_boxes or [_NO_WINDOW] * len(global_masks)
    terms: CarbTerms = carb(logits, global_masks, local_masks, boxes, batch.image_labels)
    return (
        replace(terms, total=terms.total + dice * dice_loss(logits, global_masks))
        if dice
        else terms
    )
