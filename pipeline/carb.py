"""CARB (Consistency-Aware Region Balancing), the paper's loss.

Kim, Lee, Choe, Shim: Weakly Supervised Semantic Segmentation for Driving Scenes, AAAI 2024
(arXiv 2312.13646), section 3. Let z be the segmenter's logits on a crop, y the classes present,
G CLIP's pseudo-mask of the crop, w a window in it, L CLIP's pseudo-mask of the magnified window,
and CE(z, M; R) the mean cross-entropy over the pixels of a region R of the whole batch:

    global-local loss   CE(z, G) + CE(z|w, L)                     to the end of the warm-up
    regions             reliable R = {arg-max of z among y = M},  noisy N = the other pixels of M
    CARB loss           CE(z, G; R) + lambda CE(z, G; N)
                        + CE(z|w, L; R_w) + lambda CE(z|w, L; N_w)        after the warm-up
    balance             lambda = base * mean of the last 5 CE(z, G; R)
                                      / mean of the last 5 CE(z, G; N), without gradient

`split_by_consistency` is "regions", `CarbLoss.forward` the two losses, `CarbLoss._balance` lambda.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.system.distributed import all_reduce_sum, all_reduce_sum_with_grad
from pipeline.views import Box


@dataclass(frozen=True)
class CarbTerms:
    """The parts of the loss of one step, 0-d tensors; only ``total`` and its terms carry gradient.

    In warm-up the plain terms are in ``reliable`` and ``local_reliable``, the noisy ones are 0 and
    ``weight`` is 1.
    """

    total: Tensor
    reliable: Tensor
    noisy: Tensor
    local_reliable: Tensor
    local_noisy: Tensor
    weight: Tensor
    reliable_fraction: Tensor


@torch.no_grad()
def split_by_consistency(
    logits: Tensor, pseudo_mask: Tensor, image_labels: Tensor, *, tau: float
) -> tuple[Tensor, Tensor]:
    """Split the valid pixels by whether the segmenter agrees with CLIP: the equation "regions".

    The segmenter votes only among classes known to be in the image, as CLIP did. (The authors
    multiply the logits by 0/1 image labels instead, so that an absent class (0) beats present ones
    with negative logits.)

    Args:
        logits: segmenter scores, ``[B, C, H, W]`` float.
        pseudo_mask: CLIP's class per pixel, ``[B, H, W]`` int64, or ``IGNORE_INDEX``.
        image_labels: classes present, ``[B, C]`` bool.
        tau: reliable pixels also need this probability of CLIP's class (softmax over the present
            classes), 0 to 1; 0 is the paper's rule.

    Returns:
        ``reliable, noisy``: disjoint ``[B, H, W]`` bool maps covering every valid pixel.
    """
    present = logits.masked_fill(~image_labels[:, :, None, None], -torch.inf)
    valid = pseudo_mask != IGNORE_INDEX
    vote = present.max(dim=1).indices  # faster than argmax, see hard_mask
    reliable = valid & (vote == pseudo_mask)
    if tau > 0:
        index = pseudo_mask.masked_fill(~valid, 0)[:, None]  # [B, 1, H, W]
        probs = (present.gather(1, index) - present.logsumexp(dim=1, keepdim=True)).exp()
        reliable &= probs[:, 0] >= tau
    return reliable, valid & ~reliable


def _region_mean(losses: Tensor, mass: Tensor, region: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss over a region of the global batch, and whether the region has any pixel.

    An empty region contributes 0 and no gradient (the authors': NaN). The value is the same on
    every process.
    """
    share = torch.where(region, losses, 0).sum()
    total = all_reduce_sum(torch.where(region, mass, 0).sum())
    return all_reduce_sum_with_grad(share) / torch.where(total > 0, total, 1), total > 0


def _soft_losses(
    logits: Tensor, soft: Tensor, class_weights: Tensor | None
) -> tuple[Tensor, Tensor]:
    """-log sum_c q_c p_c per pixel and its weight: that of the classes' posterior."""
    joint = soft + logits.log_softmax(dim=1)
    losses = -joint.logsumexp(dim=1)
    if class_weights is None:
        return losses, torch.ones_like(losses)
    mass = (joint.detach().softmax(dim=1) * class_weights[:, None, None]).sum(dim=1)
    return losses * mass, mass


class CarbLoss(nn.Module):
    """The CARB loss with its state: the step counter and the recent terms that lambda averages.

    Both are in ``state_dict``, so that a resumed run continues exactly, and equal on every process.

    Args:
        tau: see `split_by_consistency`.
        warmup_steps: CARB acts from step ``warmup_steps + 1`` on; the first call is step 1.
        base: factor of lambda.
        queue_size: how many steps lambda averages over.
        weight: fixes lambda at this number; None: adaptive.
        class_weights: ``[C]`` float, weight of each class in every mean; None: all 1 (paper).
        floor: lower bound of lambda; 0 in the paper, where lambda falls as the noisy loss rises.
    """

    recent: Tensor
    class_weights: Tensor | None

    def __init__(
        self,
        *,
        tau: float,
        warmup_steps: int,
        base: float = 1.0,
        queue_size: int = 5,
        weight: float | None = None,
        class_weights: Tensor | None = None,
        floor: float = 0.0,
    ) -> None:
        super().__init__()
        if not 0 <= tau <= 1:
            raise ValueError(f"params.yaml: carb.tau must be between 0 and 1, got {tau}")
        self.tau, self.warmup_steps, self.base, self.weight = tau, warmup_steps, base, weight
        self.floor = floor
        self.step = 0
        # Recent CE(reliable) and CE(noisy), oldest first; NaN where there is none yet.
        self.register_buffer("recent", torch.full((2, queue_size), torch.nan))
        self.register_buffer("class_weights", class_weights, persistent=False)

    def get_extra_state(self) -> Tensor:
        """The step counter, as a tensor so that it fits into safetensors."""
        return torch.tensor(self.step)

    def set_extra_state(self, state: Tensor) -> None:
        """Restore the step counter."""
        self.step = int(state)

    def forward(
        self,
        logits: Tensor,
        global_masks: Tensor,
        local_masks: Tensor,
        local_boxes: Sequence[Box],
        image_labels: Tensor,
        soft_labels: tuple[Tensor, Tensor | None] | None = None,
    ) -> CarbTerms:
        """Loss of one step; train mode also updates the step counter and lambda's terms.

        Args:
            logits: segmenter scores at crop size, ``[B, C, H, W]`` float.
            global_masks: CLIP's pseudo-masks of the crops, ``[B, H, W]`` int64 or ``IGNORE_INDEX``.
            local_masks: of the windows, ``[B, h, w]`` int64 or ``IGNORE_INDEX``.
            local_boxes: where the windows lie, whole pixels of the crop, one per image.
            image_labels: classes present, ``[B, C]`` bool.
            soft_labels: logarithms of CLIP's probabilities on the crops and the windows (None
                without windows), ``[B, C, H, W]`` and ``[B, C, h, w]``. The loss of a pixel is then
                -log sum_c q_c p_c, see `pipeline.training.soft_labels`; the masks still decide
                about the regions. None: cross-entropy with the masks (paper).

        Raises:
            ValueError: the sizes do not match.
        """
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        local_logits = _windows(logits, local_boxes, local_masks)
        _check_size(logits, global_masks, "global_masks")
        if self.training:
            self.step += 1
        image_labels = image_labels.bool()
        soft, local_soft = soft_labels or (None, None)
        reliable, noisy, fraction, both = self._view_terms(logits, global_masks, image_labels, soft)
        local_reliable, local_noisy, _, _ = self._view_terms(
            local_logits, local_masks, image_labels, local_soft
        )
        weight = self._balance(reliable, noisy, both)
        # In warm-up the noisy terms are 0: the global-local loss.
        total = reliable + weight * noisy + local_reliable + weight * local_noisy
        return CarbTerms(total, reliable, noisy, local_reliable, local_noisy, weight, fraction)

    @property
    def warming_up(self) -> bool:
        """True while the plain loss is used."""
        return self.step <= self.warmup_steps

    def _view_terms(
        self, logits: Tensor, masks: Tensor, image_labels: Tensor, soft: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """``CE(reliable), CE(noisy)``, the reliable share, and whether neither region is empty."""
        valid = masks != IGNORE_INDEX
        if soft is None:
            losses = F.cross_entropy(
                logits,
                masks,
                weight=self.class_weights,
                ignore_index=IGNORE_INDEX,
                reduction="none",
            )  # [B, H, W], 0 where ignored
            mass = torch.ones_like(losses)
            if self.class_weights is not None:
                mass = self.class_weights[masks.masked_fill(~valid, 0)]
        else:
            losses, mass = _soft_losses(logits, soft, self.class_weights)
        reliable, noisy = split_by_consistency(logits, masks, image_labels, tau=self.tau)
        fraction = all_reduce_sum(reliable.sum()) / all_reduce_sum(valid.sum()).clamp_min(1)
        if self.warming_up:
            plain, filled = _region_mean(losses, mass, valid)
            return plain, torch.zeros_like(plain), fraction, filled
        reliable_mean, some_reliable = _region_mean(losses, mass, reliable)
        noisy_mean, some_noisy = _region_mean(losses, mass, noisy)
        return reliable_mean, noisy_mean, fraction, some_reliable & some_noisy

    @torch.no_grad()
    def _balance(self, reliable: Tensor, noisy: Tensor, both: Tensor) -> Tensor:
        """The equation "balance": this step's own terms are pushed first, if no region is empty."""
        if self.warming_up:
            return torch.ones_like(reliable)
        if self.weight is not None:
            return torch.full_like(reliable, self.weight)
        if self.training:
            pushed = torch.cat([self.recent[:, 1:], torch.stack([reliable, noisy])[:, None]], dim=1)
            self.recent.copy_(torch.where(both, pushed, self.recent))
        means = self.recent.nanmean(dim=1)
        ratio = means[0] / means[1]
        balanced = self.base * torch.where(ratio.isnan(), 1.0, ratio)  # nothing pushed yet
        return balanced.clamp_min(self.floor)


def _check_size(logits: Tensor, masks: Tensor, name: str) -> None:
    if logits.shape[-2:] != masks.shape[-2:]:
        raise ValueError(
            f"{name} must be {tuple(logits.shape[-2:])} (H, W) like logits, "
            f"got {tuple(masks.shape[-2:])}; upsample the logits first"
        )


def _windows(logits: Tensor, boxes: Sequence[Box], masks: Tensor) -> Tensor:
    """Cut each image's window out of its logits: ``[B, C, H, W] -> [B, C, h, w]``."""
    if len(boxes) != len(logits):
        raise ValueError(f"local_boxes: one Box per image ({len(logits)}) needed, got {len(boxes)}")
    cuts = []
    for photo, box in zip(logits, boxes, strict=True):
        cuts.append(photo[:, *box.slices()])
        _check_size(cuts[-1], masks, "local_masks")
    return torch.stack(cuts)
