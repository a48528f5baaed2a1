"""The Dice loss: every class counts alike, however few its pixels, as in mIoU.

Sudre et al., Generalised Dice overlap (arXiv 1707.03237), equation 1 without weights: soft counts
are summed over the batch, and the mean is over the classes that its masks hold.
"""

import torch
from torch import Tensor

from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.system.distributed import all_reduce_sum_with_grad

SMOOTH = 1.0  # pixel; a class of few pixels moves the loss less


def dice_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """One minus the Dice coefficient, mean over the classes present; 0 if there is none.

    Args:
        logits: segmenter scores, ``[B, C, H, W]`` float.
        masks: class per pixel, ``[B, H, W]`` int64 or ``IGNORE_INDEX``.

    Returns:
        0-d float32, the same on every process: counts are of the global batch.
    """
    count, valid = logits.shape[1], masks != IGNORE_INDEX
    probs = logits.float().softmax(dim=1).where(valid[:, None], 0)
    classes = torch.arange(count, device=masks.device)[:, None, None]
    wanted = masks[:, None] == classes  # [B, C, H, W]; nowhere where ignored
    common = all_reduce_sum_with_grad(probs.where(wanted, 0).sum(dim=(0, 2, 3)))
    named = all_reduce_sum_with_grad(probs.sum(dim=(0, 2, 3)))
    there = all_reduce_sum_with_grad(wanted.sum(dim=(0, 2, 3)).float())
    loss = 1 - (2 * common + SMOOTH) / (named + there + SMOOTH)
    present = there > 0
    return torch.where(present, loss, 0).sum() / present.sum().clamp_min(1)
