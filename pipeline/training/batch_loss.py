"""Loss of a training batch: class weights, labels of both views, Dice, presence.

The CARB loss itself is in `pipeline.carb`; here it gets its parameters and its inputs.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from pipeline.carb import CarbLoss, CarbTerms
from pipeline.config.carb import CarbParams
from pipeline.config.train import TrainParams
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.system.distributed import all_reduce_sum, all_reduce_sum_with_grad
from pipeline.training.augment import IMAGENET, Normalisation, normalise
from pipeline.training.crops import Batch, LabelSource, TrainingPhoto
from pipeline.training.soft_labels import SoftLabels, posterior, spread
from pipeline.views import Box

COUNTED_IMAGES = 20_000  # at most, for class frequencies
FEW = 50.0  # pixels of a class in soft labels, of the whole batch
DICE_SMOOTHING = 1.0  # in pixels; damps classes of few pixels
POOLING = 5.0  # between the mean (0) and the maximum (infinity), as in the paper of presence_loss
_NO_WINDOW = Box(0, 0, 1, 1)


@dataclass(frozen=True)
class BatchLoss:
    """The loss of a batch; call it with batch and model.

    Attributes:
        carb: the CARB loss with its state.
        dice_weight: of the Dice loss on the global view, added to the total.
        presence_weight: likewise of the presence loss.
        soft_labels: the balance of soft pseudo-masks; None: hard pseudo-masks (paper).
        normalisation: of the images, as the encoder expects it.
    """

    carb: CarbLoss
    dice_weight: float = 0.0
    normalisation: Normalisation = IMAGENET
    presence_weight: float = 0.0
    soft_labels: SoftLabels | None = None

    @property
    def modules(self) -> dict[str, nn.Module]:
        """What has a state, by its name in a checkpoint."""
        soft = {} if self.soft_labels is None else {"soft_labels": self.soft_labels}
        return {"carb": self.carb, **soft}

    def to(self, device: torch.device) -> "BatchLoss":
        """Move the loss to a device, in place."""
        for module in self.modules.values():
            module.to(device)
        return self

    def __call__(self, batch: Batch, model: nn.Module) -> CarbTerms:
        """One forward pass of a model, its logits against the pseudo-masks of both views."""
        with torch.no_grad():
            masks = batch.global_logits.hard_masks(batch.image_labels)
            if batch.local_logits is None:  # all ignored: the local terms are 0
                local_masks = masks.new_full((len(masks), 1, 1), IGNORE_INDEX)
            else:
                local_masks = batch.local_logits.hard_masks(batch.image_labels)
        logits = model(normalise(batch.images, self.normalisation))
        boxes = batch.local_boxes or [_NO_WINDOW] * len(masks)
        soft = self._soft_labels(batch, logits, masks)
        labels = batch.image_labels
        terms: CarbTerms = self.carb(logits, masks, local_masks, boxes, labels, soft)
        if self.dice_weight:
            probs = None if soft is None else posterior(soft[0], logits)
            dice = self.dice_weight * dice_loss(logits, masks, probs)
            terms = replace(terms, total=terms.total + dice)
        if self.presence_weight:
            presence = self.presence_weight * presence_loss(logits, batch.image_labels)
            terms = replace(terms, total=terms.total + presence)
        return terms

    @torch.no_grad()
    def _soft_labels(
        self, batch: Batch, logits: Tensor, masks: Tensor
    ) -> tuple[Tensor, Tensor | None] | None:
        """Soft pseudo-masks of both views, if they are used; the global one sets their balance."""
        if self.soft_labels is None:
            return None
        clip = batch.global_logits.present(batch.image_labels)
        if self.soft_labels.training:
            self.soft_labels.update(clip, logits, masks)
        if batch.local_logits is None:
            return self.soft_labels(clip), None
        local = batch.local_logits.present(batch.image_labels)
        return self.soft_labels(clip), self.soft_labels(local)


def make_loss(
    source: LabelSource,
    photos: Sequence[TrainingPhoto],
    *,
    carb: CarbParams,
    train: TrainParams,
    normalisation: Normalisation = IMAGENET,
) -> BatchLoss:
    """The loss with the given parameters; classes are weighted by their frequency."""
    local_levels = source.local_levels if train.local_term else []
    levels = [source.global_level, *local_levels]
    power, weights, soft = train.class_weight_power, None, None
    if power:
        weights = class_weights(class_frequency(source, photos, levels), power)
    loss = CarbLoss(
        tau=carb.tau,
        warmup_steps=carb.warmup_of(train.steps) if carb.enabled else train.steps,
        base=carb.base,
        queue_size=carb.queue_size,
        weight=carb.weight,
        class_weights=weights,
        floor=carb.min_weight,
    )
    if train.label_temperature:
        unit = spread(source, [photo.key for photo in photos])
        soft = SoftLabels(len(source.classes), temperature=train.label_temperature * unit)
    return BatchLoss(loss, train.dice_weight, normalisation, train.presence_weight, soft)


def class_frequency(
    source: LabelSource, photos: Sequence[TrainingPhoto], levels: Sequence[str]
) -> Tensor:
    """Share of each class in the pseudo-masks of the training images, ``[C]`` float64.

    Estimated on the patch grids of at most ``COUNTED_IMAGES`` evenly spaced images.
    """
    counts = torch.zeros(len(source.classes), dtype=torch.float64)
    for photo in photos[:: max(1, math.ceil(len(photos) / COUNTED_IMAGES))]:
        absent = torch.from_numpy(~photo.image_labels)[:, None, None]
        for level in levels:
            logits = torch.from_numpy(source.read(photo.key, level))
            # argmax(dim=0) is several times as slow on a CPU
            classes = logits.masked_fill(absent, -torch.inf).max(dim=0).indices
            counts += torch.bincount(classes.flatten(), minlength=len(counts)) / classes.numel()
    return counts / counts.sum()


def class_weights(frequency: Tensor, power: float) -> Tensor:
    """Weight of each class in the loss: frequency to the power ``-power``."""
    return frequency.clamp_min(1e-4).pow(-power).float()


def dice_loss(logits: Tensor, masks: Tensor, soft: Tensor | None = None) -> Tensor:
    """One minus the soft Dice coefficient, mean over the classes in the masks; 0 without any.

    As in mIoU, every class counts equally. Sudre et al., Generalised Dice overlap (arXiv
    1707.03237), equation 1 without weights, counted over the global batch.

    Args:
        logits: segmenter scores, ``[B, C, H, W]`` float.
        masks: class per pixel, ``[B, H, W]`` int64 or ``IGNORE_INDEX``.
        soft: probabilities in their place, ``[B, C, H, W]``; a class of less than ``FEW`` pixels
            in their sum counts less.

    Returns:
        0-d float32, the same on every process.
    """
    count, valid = logits.shape[1], masks != IGNORE_INDEX
    probs = logits.float().softmax(dim=1).where(valid[:, None], 0)
    classes = torch.arange(count, device=masks.device)[:, None, None]
    one_hot = masks[:, None] == classes  # [B, C, H, W]; false where ignored
    hit = probs.where(one_hot, 0) if soft is None else probs * soft
    overlap = all_reduce_sum_with_grad(hit.sum(dim=(0, 2, 3)))
    predicted = all_reduce_sum_with_grad(probs.sum(dim=(0, 2, 3)))
    aim = one_hot if soft is None else soft.where(valid[:, None], 0)
    wanted = all_reduce_sum_with_grad(aim.sum(dim=(0, 2, 3)).float())
    loss = 1 - (2 * overlap + DICE_SMOOTHING) / (predicted + wanted + DICE_SMOOTHING)
    if soft is None:
        present = wanted > 0
        return torch.where(present, loss, 0).sum() / present.sum().clamp_min(1)
    weight = (wanted / FEW).clamp_max(1)
    return (weight * loss).sum() / weight.sum().clamp_min(1e-9)


def presence_loss(logits: Tensor, image_labels: Tensor) -> Tensor:
    """Cross-entropy between image-level labels and the classes that the segmenter finds.

    A class is found with the probability that its pixels give, pooled by a smooth maximum:
    Pinheiro and Collobert, From Image-level to Pixel-level Labeling with Convolutional Networks
    (arXiv 1411.6228), equation 4, on log-probabilities. So a class that the pseudo-masks confuse
    with others must appear somewhere, and absent classes nowhere.

    Args:
        logits: segmenter scores, ``[B, C, H, W]`` float.
        image_labels: classes present, ``[B, C]`` bool.

    Returns:
        0-d float32, the mean over images and classes of the global batch.
    """
    pixels = logits.float().log_softmax(dim=1).flatten(2)  # [B, C, H * W]
    pooled = ((POOLING * pixels).logsumexp(dim=2) - math.log(pixels.shape[2])) / POOLING
    absent = torch.log1p(-pooled.exp().clamp_max(1 - 1e-6))
    losses = -torch.where(image_labels, pooled, absent)
    count = all_reduce_sum(torch.tensor(float(losses.numel()), device=losses.device))
    return all_reduce_sum_with_grad(losses.sum()) / count
