"""Soft pseudo-masks: CLIP's probabilities, corrected by the segmenter as it learns.

CLIP makes the same mistake everywhere (dark shop fronts are poles), but its second choice is often
right. With q CLIP's probabilities of a pixel and p the segmenter's, the loss of the pixel is
-log sum_c q_c p_c instead of -log p_y. Its gradient is that of the cross-entropy with the posterior
q p / sum_c q_c p_c: the segmenter decides where CLIP is not sure, as in expectation maximisation
for noisy labels (Reed et al., Training Deep Neural Networks on Noisy Labels with Bootstrapping,
arXiv 1412.6596, is a relative; Zhang et al., ProDA, arXiv 2101.10979, multiplies q by other
weights). Alone, this starves rare classes. So q is balanced: the logit of a class is raised while
its share of the posterior is below its share of the pseudo-masks.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.system.distributed import all_reduce_sum
from pipeline.training.crops import LabelSource

MEASURED_IMAGES = 200  # at most, for the spread
DECAY = 0.95  # of the running shares, per step
RATE = 0.1  # of the balance: per step, times the logarithm of the ratio of both shares
MOST = 8.0  # raise of a logit
LEAST = 1e-5  # added to shares


class SoftLabels(nn.Module):
    """The balance of the classes, which training updates; in ``state_dict``, so runs resume.

    Args:
        num_classes: C.
        temperature: of CLIP's logits, in their own units.
    """

    shares: Tensor
    raised: Tensor

    def __init__(self, num_classes: int, *, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature
        # Running shares of each class: of the pseudo-masks, and of the posterior.
        self.register_buffer("shares", torch.full((2, num_classes), 1e-4))
        self.register_buffer("raised", torch.zeros(num_classes))

    def forward(self, clip: Tensor) -> Tensor:
        """Balanced logarithms of CLIP's probabilities, ``[B, C, H, W]`` float32.

        Args:
            clip: CLIP's logits, ``[B, C, H, W]``; ``-inf`` for absent classes.
        """
        return self._balanced(clip).log_softmax(dim=1)

    @torch.no_grad()
    def update(self, clip: Tensor, logits: Tensor, masks: Tensor) -> None:
        """Change the balance by the pixels of a step.

        Args:
            clip: as of `forward`.
            logits: the segmenter's, ``[B, C, H, W]`` float.
            masks: CLIP's class per pixel, ``[B, H, W]`` int64.
        """
        probs = posterior(self._balanced(clip), logits)
        hard = torch.bincount(masks.flatten(), minlength=probs.shape[1]).float()
        found = all_reduce_sum(torch.stack([hard, probs.sum((0, 2, 3))]))
        self.shares.mul_(DECAY).add_(found / found.sum(1, keepdim=True), alpha=1 - DECAY)
        wanted, got = (self.shares + LEAST).log()
        self.raised.add_(wanted - got, alpha=RATE).clamp_(0, MOST)

    def _balanced(self, clip: Tensor) -> Tensor:
        """CLIP's logits at the temperature, raised."""
        return clip / self.temperature + self.raised[:, None, None]


def posterior(labels: Tensor, logits: Tensor) -> Tensor:
    """Probabilities proportional to CLIP's times the segmenter's, without gradient.

    Args:
        labels: logarithms of CLIP's probabilities, ``[B, C, H, W]``.
        logits: the segmenter's, ``[B, C, H, W]``.
    """
    return (labels + logits.detach().float().log_softmax(dim=1)).softmax(dim=1)


def spread(source: LabelSource, keys: Sequence[str]) -> float:
    """Standard deviation over the classes of the logits of the global level, mean over the images.

    It serves as the unit of CLIP's logits, whose scale depends on the model.
    """
    few = keys[:: -(-len(keys) // MEASURED_IMAGES)]
    deviations = [source.read(key, source.global_level).std(axis=0).mean() for key in few]
    return float(np.mean(deviations)) or 1.0
