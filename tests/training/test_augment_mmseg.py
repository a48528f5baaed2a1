"""The authors' photometric changes, against a loop over pixels after the released formula.

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
    return torch.randint(0, 256, (3, 12, 16), generator=generator, dtype=torch.uint8)


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


@pytest.mark.parametrize("seed", range(32))
def test_each_pixel_is_what_the_released_formula_makes_of_it(seed):
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


@pytest.mark.parametrize("pixel", OPENCV)
def test_colours_go_to_opencv_s_hsv_and_back(pixel):
    hsv, back = OPENCV[pixel]
    assert to_hsv(pixel) == hsv
    assert to_rgb(hsv) == back
    exact = np.array(colorsys.rgb_to_hsv(*(each / 255 for each in pixel))) * (180, 255, 255)
    assert np.abs(exact - hsv).max() < 1


def test_contrast_pivots_at_black_and_a_hue_of_a_tenth_is_18_steps():
    params = PAPER.model_copy(update={"brightness": 0, "saturation": 0, "hue": 0})
    grey = torch.tensor([40, 80, 160], dtype=torch.uint8).expand(3, 1, 3)
    seen = set()
    for seed in range(120):
        out = distort(grey, params, generator=torch.Generator().manual_seed(seed))[0, 0].tolist()
        factor = out[2] / 160
        seen.add(round(factor, 1))
        assert [round(out[0] / 40, 1), round(out[1] / 80, 1)] == pytest.approx(
            [factor] * 2, abs=0.1
        )
    assert {0.5, 1.0, 1.5} <= seen
    params = PAPER.model_copy(update={"brightness": 0, "saturation": 0, "contrast": 0})
    red = torch.tensor([200, 0, 0], dtype=torch.uint8)[:, None, None].expand(3, 1, 32)
    turns = set()
    for seed in range(400):
        out = distort(red, params, generator=torch.Generator().manual_seed(seed))
        hue = to_hsv(tuple(out[:, 0, 0].tolist()))[0]
        turns.add(hue - 180 if hue > 90 else hue)
    assert min(turns) in (-18, -17)
    assert max(turns) in (16, 17)


def test_each_change_comes_in_half_of_the_crops():
    image, changed = noise(0), dict.fromkeys(("brightness", "contrast", "saturation", "hue"), 0)
    for name in changed:
        nothing = dict.fromkeys(changed, 0)
        params = PAPER.model_copy(update=nothing | {name: getattr(PAPER, name)})
        for seed in range(200):
            out = distort(image, params, generator=torch.Generator().manual_seed(seed))
            plain = distort(
                image,
                PAPER.model_copy(update=nothing),
                generator=torch.Generator().manual_seed(seed),
            )
            changed[name] += not torch.equal(out, plain)
    assert all(80 <= count <= 120 for count in changed.values()), changed
