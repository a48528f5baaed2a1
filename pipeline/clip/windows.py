"""A magnified photo shown to CLIP through windows, and what it sees blended to one grid."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.clip.dense import DenseClip
from pipeline.config.clip import LevelParams
from pipeline.views import Box, blend, cover, level_size

PIXELS_A_CALL = 2**23  # of windows: 16 of 512 x 1024; the towers' memory grows with it


def magnified(image: Image.Image, level: LevelParams, *, patch_size: int) -> Tensor:
    """A photo at the size of a level, ``[H, W, 3]`` uint8 RGB, whole patches a side."""
    height, width = level_size((image.height, image.width), zoom=level.zoom, patch_size=patch_size)
    return torch.from_numpy(np.array(image.resize((width, height), Image.Resampling.BICUBIC)))


def window_batches(pixels: Tensor, boxes: Sequence[Box], clip: DenseClip) -> Iterator[Tensor]:
    """Windows of a magnified photo as CLIP takes them, so many a call as memory allows.

    Args:
        pixels: ``[H, W, 3]`` uint8, on CLIP's device.
        boxes: windows of one size, in its pixels.
        clip: gives the normalisation.

    Yields:
        ``[n, 3, h, w]`` float32.
    """
    mean, std = (
        pixels.new_tensor(v, dtype=torch.float32)[:, None, None] for v in (clip.mean, clip.std)
    )
    ready = (pixels.permute(2, 0, 1).float() / 255 - mean) / std  # [3, H, W]
    count = max(1, PIXELS_A_CALL // int(boxes[0].height * boxes[0].width))
    for start in range(0, len(boxes), count):
        yield torch.stack([ready[:, *box.slices()] for box in boxes[start : start + count]])


@torch.no_grad()
def cover_features(
    pixels: Tensor, level: LevelParams, clip: DenseClip, encode: Callable[[Tensor], Tensor]
) -> Tensor:
    """Look at a photo through the windows of a level and blend what is seen to one grid.

    The windows of one photo go through the tower together, so a photo's result does not depend on
    its neighbours.

    Args:
        pixels: the photo as `magnified` gives it.
        level: the windows.
        clip: gives patch size and normalisation.
        encode: windows ``[n, 3, H, W]`` -> ``[n, K, h, w]``; logits or features.

    Returns:
        ``[K, rows, columns]`` float32, on CLIP's device.
    """
    patch, (height, width) = clip.patch_size, pixels.shape[:2]
    boxes = cover((height, width), window=level.window, overlap=level.overlap, patch_size=patch)
    moved = pixels.to(clip.device, non_blocking=True)
    grids = [encode(windows).float() for windows in window_batches(moved, boxes, clip)]
    cells = [Box(*(int(edge) // patch for edge in box)) for box in boxes]
    return blend(torch.cat(grids), cells, size=(height // patch, width // patch))
