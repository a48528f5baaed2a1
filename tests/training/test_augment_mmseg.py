"""The authors' photometric distortion against a loop over pixels with the released formula.

mmsegmentation 0.x, ``PhotoMetricDistortion``; its colours are OpenCV's 8-bit ones (``color_hsv``).
"""

import colorsys
import math

import numpy as np
import pytest
import torch

from pipeline.config.views import AugmentParams
from pipeline.training.augment import distort

PAPER = AugmentParams(style="mmseg", brightness=32 / 255, contrast=0.5, saturation=0.5, hue=0.1)
Pixel = tuple[int, int, int]


def noise(seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, 20, 24), generator=generator, dtype=torch.uint8)


def convert(value: int, alpha: float = 1.0, beta: float = 0.0) -> int:
    """``np.clip(img.astype(np.float32) * alpha + beta, 0, 255).astype(np.uint8)``."""
    moved = np.float32(value) * np.float32(alpha) + np.float32(beta)
    return int(np.uint8(np.clip(moved, 0, 255)))


def to_hsv(pixel: Pixel) -> Pixel:
    """OpenCV: hue in halves of a degree; every division is a product with a rounded reciprocal."""
    red, green, blue = pixel
    value, least = max(pixel), min(pixel)
    spread = value - least
    if spread == 0:
        return 0, 0, value
    if value == red:
        sixths = green - blue
    elif value == green:
        sixths = blue - red + 2 * spread
    else:
        sixths = red - green + 4 * spread
    saturation = (spread * round((255 << 12) / value) + (1 << 11)) >> 12
    hue = (sixths * round((180 << 12) / (6 * spread)) + (1 << 11)) >> 12
    return hue + 180 * (hue < 0), saturation, value


def to_rgb(pixel: Pixel) -> Pixel:
    """OpenCV's vectorised code: float32, cut to whole numbers at the end."""
    one = np.float32(1)
    sixths = np.float32(pixel[0]) * np.float32(6 / 180)
    saturation, value = (np.float32(each) * np.float32(1 / 255) for each in pixel[1:])
    sector = math.floor(sixths)
    rest = sixths - np.float32(sector)
    low, down = value * (one - saturation), value * (one - saturation * rest)
    up = value * (one - saturation * (one - rest))
    order = [(value, up, low), (down, value, low), (low, value, up)]
    order += [(low, down, value), (up, low, value), (value, low, down)]
    return tuple(int(np.uint8(level * np.float32(255))) for level in order[sector])  # type: ignore


def released(pixel: Pixel, drawn: list[float]) -> Pixel:
    """``PhotoMetricDistortion.__call__`` of one pixel, its random numbers given."""

    def uniform(place: float, low: float, high: float) -> float:
        return low + place * (high - low)

    def contrast(one: Pixel) -> Pixel:
        alpha = uniform(drawn[3], 0.5, 1.5)
        return tuple(convert(each, alpha) for each in one) if drawn[2] < 0.5 else one

    if drawn[0] < 0.5:
        beta = uniform(drawn[1], -32, 32)
        pixel = tuple(convert(each, beta=beta) for each in pixel)
    if drawn[8] >= 0.5:
        pixel = contrast(pixel)
    if drawn[4] < 0.5:
        hue, saturation, value = to_hsv(pixel)
        pixel = to_rgb((hue, convert(saturation, uniform(drawn[5], 0.5, 1.5)), value))
    if drawn[6] < 0.5:
        hue, saturation, value = to_hsv(pixel)
        turn = math.floor(uniform(drawn[7], -18, 18))  # numpy's randint(-18, 18)
        pixel = to_rgb(((hue + turn) % 180, saturation, value))
    return contrast(pixel) if drawn[8] < 0.5 else pixel


@pytest.mark.parametrize("seed", range(3))
def test_each_pixel_equals_the_released_formula(seed):
    image = noise(seed)
    found = distort(image, PAPER, generator=torch.Generator().manual_seed(seed))
    drawn = torch.rand(9, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    wanted = [released(tuple(p), drawn.tolist()) for p in image.flatten(1).T.tolist()]
    away = (found.flatten(1).T.int() - torch.tensor(wanted)).abs()
    assert away.max() <= 1  # the last bit of a float32, cut to a whole number
    assert (away > 0).float().mean() < 0.005


# RGB, and what OpenCV 4.8.1 makes of it: cvtColor to HSV and back, in whole rows.
OPENCV = {
    (200, 100, 50): ((10, 191, 200), (200, 100, 50)),
    (10, 250, 130): ((75, 245, 250), (9, 250, 129)),
    (90, 20, 255): ((129, 235, 255), (90, 19, 255)),
    (77, 77, 77): ((0, 0, 77), (77, 77, 77)),
}


def test_hsv_equals_opencv_s():
    for pixel, (hsv, back) in OPENCV.items():
        assert to_hsv(pixel) == hsv
        assert to_rgb(hsv) == back
        exact = np.array(colorsys.rgb_to_hsv(*(each / 255 for each in pixel))) * (180, 255, 255)
        assert np.abs(exact - hsv).max() < 1
