"""The gamma curve that photos get before CLIP sees them."""

import numpy as np
import pytest
from PIL import Image

from pipeline.clip.windows import exposed
from pipeline.config.clip import ClipParams
from tests.clip.conftest import Build


def grey(value: int) -> Image.Image:
    return Image.new("RGB", (4, 4), (value, value, value))


def test_an_image_of_one_grey_gets_the_wanted_brightness() -> None:
    for value in (20, 80, 200):
        assert abs(np.asarray(exposed(grey(value), 0.45)).mean() / 255 - 0.45) < 0.005
    assert exposed(grey(80), None).getpixel((0, 0)) == (80, 80, 80)


@pytest.mark.parametrize("value", [0, 255])
def test_black_and_white_stay(value: int) -> None:
    assert exposed(grey(value), 0.45).getpixel((0, 0)) == (value, value, value)


def test_the_curve_rises_is_the_same_for_all_channels_and_keeps_the_order_of_values() -> None:
    ramp = np.arange(256, dtype=np.uint8).reshape(1, 256, 1).repeat(3, axis=2) // 4
    curve = np.asarray(exposed(Image.fromarray(ramp), 0.45)).astype(int)
    assert (np.diff(curve[0, :, 0]) >= 0).all()
    assert (curve[..., 0] == curve[..., 1]).all()
    assert (curve[..., 0] >= ramp[..., 0]).all()  # a dark image is brightened


def test_a_changed_brightness_is_computed_again(build: Build, asked: ClipParams) -> None:
    before, _ = build("ab")
    files, log = build("ab", params=asked.model_copy(update={"brightness": 0.6}))
    assert "CLIP: 4 views to compute, 0 in the cache" in log
    assert files != before
