"""Loss of a training batch: class weights, pseudo-masks of both views, Dice.

The CARB loss itself is in `pipeline.carb`; here it gets its parameters and its inputs.
"""

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from pipeline.carb import CarbLoss, CarbTerms
from pipeline.config.carb import CarbParams
from pipeline.config.train import TrainParams
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.distributed import all_reduce_sum_with_grad
from pipeline.training.augment import IMAGENET, Normalisation, normalise
from pipeline.training.crops import Batch, TrainingPhoto
from pipeline.views import Box

COUNTED_IMAGES = 20_000  # at most, for class frequencies
DICE_SMOOTHING = 1.0  # in pixels; damps classes of few pixels
_NO_WINDOW = Box(0, 0, 1, 1)


def make_loss(
    store: PseudoMaskStore,
    photos: Sequence[TrainingPhoto],
    *,
    carb: CarbParams,
    train: TrainParams,
) -> CarbLoss:
    """The CARB loss with the given parameters, and classes weighted by their frequency."""
    levels = [store.global_level, *store.local_levels] if train.local_term else [store.global_level]
    power, weights = train.class_weight_power, None
    if power:
        weights = class_weights(class_frequency(store, photos, levels), power)
    return CarbLoss(
        tau=carb.tau,
        warmup_steps=carb.warmup_of(train.steps) if carb.enabled else train.steps,
        base=carb.base,
        queue_size=carb.queue_size,
        weight=carb.weight,
        class_weights=weights,
        floor=carb.min_weight,
    )


def class_frequency(
    store: PseudoMaskStore, photos: Sequence[TrainingPhoto], levels: Sequence[str]
) -> Tensor:
    """Share of each class in the pseudo-masks of the training images, ``[C]`` float64.

    Estimated on the patch grids of at most ``COUNTED_IMAGES`` evenly spaced images.
    """
    counts = torch.zeros(len(store.classes), dtype=torch.float64)
    for photo in photos[:: max(1, math.ceil(len(photos) / COUNTED_IMAGES))]:
        absent = torch.from_numpy(~photo.image_labels)[:, None, None]
        for level in levels:
            logits = torch.from_numpy(store.read(photo.key, level))
            # argmax(dim=0) is several times as slow on a CPU
            classes = logits.masked_fill(absent, -torch.inf).max(dim=0).indices
            counts += torch.bincount(classes.flatten(), minlength=len(counts)) / classes.numel()
    return counts / counts.sum()


def class_weights(frequency: Tensor, power: float) -> Tensor:
    """Weight of each class in the loss: frequency to the power ``-power``."""
    return frequency.clamp_min(1e-4).pow(-power).float()


def batch_loss(
    batch: Batch,
    model: nn.Module,
    carb: CarbLoss,
    *,
    dice_weight: float = 0.0,
    normalisation: Normalisation = IMAGENET,
) -> CarbTerms:
    """Loss of a batch: one forward pass, its logits against the pseudo-masks of both views.

    Args:
        batch: images, image-level labels and CLIP's logits.
        model: the segmenter.
        carb: the loss.
        dice_weight: of the Dice loss on the global view, added to the total.
        normalisation: of the images, as the encoder expects it.
    """
    with torch.no_grad():
        global_masks = batch.global_logits.hard_masks(batch.image_labels)
        if batch.local_logits is None:  # all ignored: the local terms are 0
            local_masks = global_masks.new_full((len(global_masks), 1, 1), IGNORE_INDEX)
        else:
            local_masks = batch.local_logits.hard_masks(batch.image_labels)
    logits = model(normalise(batch.images, normalisation))
    boxes = batch.local_boxes or [_NO_WINDOW] * len(global_masks)
    terms: CarbTerms = carb(logits, global_masks, local_masks, boxes, batch.image_labels)
    if dice_weight:
        terms = replace(terms, total=terms.total + dice_weight * dice_loss(logits, global_masks))
    return terms


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """One minus the soft Dice coefficient, mean over the classes in the masks; 0 without any.

    As in mIoU, every class counts equally. Sudre et al., Generalised Dice overlap (arXiv
    1707.03237), equation 1 without weights, counted over the global batch.

    Args:
        logits: segmenter scores, ``[B, C, H, W]`` float.
        masks: class per pixel, ``[B, H, W]`` int64 or ``IGNORE_INDEX``.

    Returns:
        0-d float32, the same on every process.
    """
    count, valid = logits.shape[1], masks != IGNORE_INDEX
    probs = logits.float().softmax(dim=1).where(valid[:, None], 0)
    classes = torch.arange(count, device=masks.device)[:, None, None]
    one_hot = masks[:, None] == classes  # [B, C, H, W]; false where ignored
    overlap = all_reduce_sum_with_grad(probs.where(one_hot, 0).sum(dim=(0, 2, 3)))
    predicted = all_reduce_sum_with_grad(probs.sum(dim=(0, 2, 3)))
    wanted = all_reduce_sum_with_grad(one_hot.sum(dim=(0, 2, 3)).float())
    loss = 1 - (2 * overlap + DICE_SMOOTHING) / (predicted + wanted + DICE_SMOOTHING)
    present = wanted > 0
    return torch.where(present, loss, 0).sum() / present.sum().clamp_min(1)
