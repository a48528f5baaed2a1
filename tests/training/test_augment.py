"""Photometric augmentation in the style of torchvision."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.config.views import AugmentParams
from pipeline.training.augment import distort

NOTHING = AugmentParams(style="torchvision", brightness=0, contrast=0, saturation=0, hue=0)
PAPER = NOTHING.model_copy(
    update={"brightness": 32 / 255, "contrast": 0.5, "saturation": 0.5, "hue": 0.1}
)


def noise(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, 16, 20), generator=generator, dtype=torch.uint8)


def distorted(image: torch.Tensor, params: AugmentParams, seed: int = 0) -> torch.Tensor:
    return distort(image, params, generator=torch.Generator().manual_seed(seed))


def test_zero_ranges_change_nothing():
    image = torch.arange(256, dtype=torch.uint8).reshape(1, 16, 16).expand(3, -1, -1)
    image = torch.stack([image[0], image[0].flip(0), image[0].T])
    for seed in range(5):
        assert torch.equal(distorted(image, NOTHING, seed), image)


@given(
    brightness=st.floats(0, 1),
    contrast=st.floats(0, 0.99),
    saturation=st.floats(0, 0.99),
    hue=st.floats(0, 0.5),
    seed=st.integers(0, 1000),
)
def test_any_ranges_give_uint8_of_the_same_shape(brightness, contrast, saturation, hue, seed):
    ranges = {"brightness": brightness, "contrast": contrast, "saturation": saturation, "hue": hue}
    image = noise(seed)
    before = image.clone()
    for style in ("torchvision", "mmseg"):
        out = distorted(image, AugmentParams(style=style, **ranges), seed)
        assert out.dtype == torch.uint8
        assert out.shape == image.shape
        assert torch.equal(image, before)


def test_brightness_adds_one_shift_within_the_range_to_all_pixels():
    params = NOTHING.model_copy(update={"brightness": 32 / 255})
    image = noise().clamp(40, 200)
    shifts = []
    for seed in range(100):
        shift = distorted(image, params, seed).int() - image.int()
        assert shift.min() == shift.max()
        shifts.append(int(shift.min()))
    assert -32 <= min(shifts) < -27
    assert 27 < max(shifts) <= 32


def test_contrast_keeps_the_mean_and_scales_the_spread_within_the_range():
    params = NOTHING.model_copy(update={"contrast": 0.5})
    grey = noise()[:1].clamp(100, 150).expand(3, -1, -1)
    spreads, shifts = [], []
    for seed in range(100):
        out = distorted(grey, params, seed).float()
        shifts.append(float(out.mean() - grey.float().mean()))
        spreads.append(float(out.std() / grey.float().std()))
    assert max(map(abs, shifts)) < 1
    assert abs(np.mean(shifts)) < 0.1  # rounded, not truncated
    assert 0.49 < min(spreads) < 0.53
    assert 1.47 < max(spreads) < 1.51


@pytest.mark.parametrize("what", ["saturation", "hue"])
def test_saturation_and_hue_change_colours_but_no_greys(what):
    params = NOTHING.model_copy(update={what: 0.4})
    grey = noise()[:1].expand(3, -1, -1)
    for seed in range(5):
        assert (distorted(grey, params, seed).int() - grey.int()).abs().max() <= 1
        assert not torch.equal(distorted(noise(), params, seed), noise())


def test_the_ranges_do_not_change_how_much_randomness_is_used():
    used = []
    for params in (NOTHING, PAPER):
        generator = torch.Generator().manual_seed(0)
        distort(noise(), params, generator=generator)
        used.append(torch.rand((), generator=generator).item())
    assert used[0] == used[1]
