"""Guided filter: edge-aware smoothing of class maps, with the image as guide.

He, Sun and Tang, Guided Image Filtering (TPAMI 2013), for a colour guide: around each pixel a map
is fitted by a linear function of the colours, so that it changes where they change. The filter is
linear in the maps: logits can be filtered before any image label is known.
"""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

FILTER_VERSION = 1  # part of the recipe of every store with a fused level
EPSILON = 1e-4  # of squared colours in [0, 1]: differences below 0.01 are not edges


def guided_filter(photo: Tensor, maps: Tensor, *, radius: int) -> Tensor:
    """Smooth maps along the edges of an image.

    Args:
        photo: the guide, ``[3, H, W]`` float in [0, 1].
        maps: ``[C, H, W]`` float: logits, or probabilities, which still sum to 1 but may go a
            little below 0.
        radius: of the square windows, pixels; a window has ``2 * radius + 1`` pixels per side.

    Returns:
        ``[C, H, W]`` float32.
    """
    with torch.autocast(photo.device.type, enabled=False):
        return _guided(photo.float(), maps.float(), radius)


def _guided(photo: Tensor, maps: Tensor, radius: int) -> Tensor:
    colour, level = _mean(photo, radius), _mean(maps, radius)
    pairs = (photo[:, None] * photo[None]).flatten(0, 1)  # [9, H, W]
    spread = _mean(pairs, radius).reshape(3, 3, *photo.shape[1:]) - colour[:, None] * colour[None]
    joint = _mean((maps[:, None] * photo[None]).flatten(0, 1), radius)
    joint = joint.reshape(len(maps), *photo.shape) - level[:, None] * colour[None]  # [C, 3, H, W]
    ridge = EPSILON * torch.eye(3, device=photo.device)
    inverse = torch.linalg.inv(spread.permute(2, 3, 0, 1) + ridge)  # [H, W, 3, 3]
    slope = torch.einsum("hwij,cjhw->cihw", inverse, joint)
    offset = level - torch.einsum("cihw,ihw->chw", slope, colour)
    slope = _mean(slope.flatten(0, 1), radius).reshape(len(maps), *photo.shape)
    return torch.einsum("cihw,ihw->chw", slope, photo) + _mean(offset, radius)


def fuse_levels(
    photo: Image.Image, grids: Sequence[Tensor], *, size: tuple[int, int], stride: int, radius: int
) -> Tensor:
    """Sum the grids of an image and filter the sum along its edges.

    Args:
        photo: the image.
        grids: ``[C, h, w]``, each spanning the image, on one device.
        size: ``(height, width)`` that photo and grids are brought to, multiples of ``stride``.
        stride: pixels of that size per cell of the result.
        radius: of the filter, pixels of that size.

    Returns:
        ``[C, height / stride, width / stride]`` float32.
    """
    total = torch.stack(
        [
            F.interpolate(grid[None].float(), size, mode="bilinear", align_corners=False)[0]
            for grid in grids
        ]
    ).sum(dim=0)  # [C, H, W]
    filtered = guided_filter(guide_image(photo, size).to(total.device), total, radius=radius)
    return F.avg_pool2d(filtered[None], stride)[0]


def guide_image(photo: Image.Image, size: tuple[int, int]) -> Tensor:
    """The guide of `guided_filter`, ``[3, H, W]`` in [0, 1], resized to ``(H, W)``."""
    resized = photo.resize((size[1], size[0]), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(resized)).permute(2, 0, 1).float() / 255


def _mean(planes: Tensor, radius: int) -> Tensor:
    """Mean over each pixel's window, clipped at the borders, ``[K, H, W]``.

    Pooled down the columns, then along the rows: exact float32 on every device; a
    convolution may run in TF32, too coarse for variances of colours.
    """
    side = 2 * radius + 1
    # channels_last: 7 times as fast on a CPU
    columns = planes[None].contiguous(memory_format=torch.channels_last)
    columns = F.avg_pool2d(columns, (side, 1), 1, (radius, 0), count_include_pad=False)
    return F.avg_pool2d(columns, (1, side), 1, (0, radius), count_include_pad=False)[0]
