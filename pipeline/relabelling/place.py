"""Where classes lie: a prior from the pseudo-masks of all training images, added to CLIP's logits.

Cameras on cars see the sky above and the road below. What CLIP takes for sky in a puddle, or for a
car in a dark cloud, is unlikely where it is. The prior is log P(class, place) minus its mean over
the places, so that frequent classes are not favoured.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.store.plan import Grid
from pipeline.store.reader import PseudoMaskStore
from pipeline.store.relabelled import StoreView
from pipeline.training.crops import TrainingPhoto

GRID = (48, 64)  # rows and columns of the prior, whatever the images' shape
SMOOTHING = 9  # cells, side of the mean filter
SHARPNESS = 8.0  # of the pseudo-masks, per standard deviation of the logits
LEAST = 1e-3  # added to probabilities


class PlacedLogits(StoreView):
    """CLIP's logits plus the prior; the local levels are CLIP's alone.

    Args:
        store: CLIP's logits.
        prior: from `place_prior`.
        weight: of the prior, in standard deviations of the logits.
        unit: that standard deviation, see `pipeline.training.soft_labels.spread`.
    """

    def __init__(
        self, store: PseudoMaskStore, prior: Tensor, *, weight: float, unit: float
    ) -> None:
        super().__init__(store)
        self._prior, self._scale = prior, weight * unit
        self._fitted: dict[Grid, np.ndarray] = {}

    def read(self, key: str, level: str) -> np.ndarray:
        """Logits of a photo, ``[C, h, w]`` float32, a grid that spans it."""
        logits = super().read(key, level)
        placed = level == self.global_level
        return logits + self._at(self.grid_size(key, level)) if placed else logits

    def read_padded(self, key: str, level: str) -> np.ndarray:
        """``[C, h, w]`` float16; here without padding."""
        return self.read(key, level).astype(np.float16)

    def _at(self, size: Grid) -> np.ndarray:
        if size not in self._fitted:
            fitted = F.interpolate(self._prior[None], size, mode="bilinear", align_corners=False)
            self._fitted[size] = (self._scale * fitted[0]).numpy()
        return self._fitted[size]


def place_prior(store: PseudoMaskStore, photos: Sequence[TrainingPhoto], *, unit: float) -> Tensor:
    """log P(class, place) minus its mean over the places, ``[C, *GRID]`` float32.

    Args:
        store: CLIP's logits; their soft pseudo-masks are averaged.
        photos: images with image-level labels; a class counts where it is present.
        unit: standard deviation of the logits, see `pipeline.training.soft_labels.spread`.
    """
    total, images = torch.zeros(len(store.classes), *GRID), torch.zeros(len(store.classes))
    for photo in photos:
        present = torch.from_numpy(photo.image_labels)
        logits = torch.from_numpy(store.read(photo.key, store.global_level))
        small = F.interpolate(logits[None], GRID, mode="bilinear", antialias=True)[0]
        masked = (SHARPNESS / unit * small).masked_fill(~present[:, None, None], -torch.inf)
        total += masked.softmax(dim=0)
        images += present
    mean = total / images[:, None, None].clamp_min(1)
    edge = SMOOTHING // 2
    padded = F.pad(mean[None], (edge, edge, edge, edge), mode="replicate")
    smooth = F.avg_pool2d(padded, SMOOTHING, 1)[0]
    return (smooth + LEAST).log() - (smooth.mean(dim=(1, 2), keepdim=True) + LEAST).log()
