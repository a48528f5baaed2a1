"""Sliding windows: encode a resized photo window by window and blend the results into one grid."""

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.clip.dense import DenseClip
from pipeline.config.clip import LevelParams
from pipeline.views import Box, blend, cover, level_size

MAX_PIXELS = 2**23  # per call of CLIP, 16 windows of 512 x 1024: bounds the memory


def exposed(image: Image.Image, brightness: float | None) -> Image.Image:
    """A photo after the gamma curve that brings the mean of its values to about ``brightness``.

    CLIP was trained on few images as dark as a street at dusk. The curve maps the mean itself, not
    each value, to the wanted one, so the new mean differs a little.

    Args:
        image: RGB, 8 bits per channel.
        brightness: in (0, 1), of values divided by 255; None: the photo is returned unchanged.
    """
    if brightness is None:
        return image
    histogram = np.array(image.histogram()).reshape(-1, 256).sum(axis=0)
    levels = np.arange(256) / 255
    mean = float(np.clip((histogram * levels).sum() / histogram.sum(), 1 / 255, 254 / 255))
    curve = 255 * levels ** (math.log(brightness) / math.log(mean))
    return image.point(curve.round().astype(int).tolist() * len(image.getbands()))


def magnified(image: Image.Image, level: LevelParams, *, patch_size: int) -> Tensor:
    """A photo at the size of a level, ``[H, W, 3]`` uint8 RGB, whole patches per side."""
    height, width = level_size((image.height, image.width), zoom=level.zoom, patch_size=patch_size)
    return torch.from_numpy(np.array(image.resize((width, height), Image.Resampling.BICUBIC)))


def window_batches(pixels: Tensor, boxes: Sequence[Box], clip: DenseClip) -> Iterator[Tensor]:
    """Normalised windows of a resized photo, in batches that fit into memory.

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
    count = max(1, MAX_PIXELS // int(boxes[0].height * boxes[0].width))
    for start in range(0, len(boxes), count):
        yield torch.stack([ready[:, *box.slices()] for box in boxes[start : start + count]])


@torch.no_grad()
def cover_features(
    pixels: Tensor, level: LevelParams, clip: DenseClip, encode: Callable[[Tensor], Tensor]
) -> Tensor:
    """Encode the windows of a level and blend the results into one grid.

    A batch has windows of one photo only, so that the result does not depend on other photos.

    Args:
        pixels: the photo, from `magnified`.
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
