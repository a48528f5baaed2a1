"""Colours that colour-blind people tell apart, measured by another model than the one that chose
them."""

import numpy as np
import pytest
from pipeline.report.palettes import seen

from pipeline.report.drawing import palette_of
from pipeline.scenes.classes import LABEL_SPACES

# Vienot, Brettel, Mollon 1999: linear RGB -> what protanopes and deuteranopes see, and luminance.
VIENOT = [
    np.eye(3),
    np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
    np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
]
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def cielab(colours: np.ndarray, vision: np.ndarray) -> np.ndarray:
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt((linear @ vision.T).clip(1e-4, 1) @ XYZ.T / XYZ.sum(axis=1)).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def least_distance(colours: np.ndarray) -> float:
    """Between the two most alike colours, over all kinds of vision."""
    first, second = np.triu_indices(len(colours), 1)
    looks = (cielab(colours, vision) for vision in VIENOT)
    return min(float(np.linalg.norm(look[first] - look[second], axis=-1).min()) for look in looks)


@pytest.mark.parametrize(("name", "count"), [("demo", 17), ("cityscapes", 19), ("wilddash2", 25)])
def test_colours_stay_apart_for_colour_blind_people(name: str, count: int) -> None:
    own = LABEL_SPACES[name].palette
    made = palette_of("colour_blind", own)
    assert made.shape == (count, 3)
    assert made.dtype == np.uint8
    assert least_distance(made) > 3 * least_distance(own)
    assert least_distance(np.vstack([made, [[255, 255, 255]]])) > 5  # 2.3 is just noticeable


@pytest.mark.parametrize("name", ["cityscapes", "wilddash2"])
def test_every_kind_of_vision_gains(name: str) -> None:
    own = LABEL_SPACES[name].palette
    pairs = np.triu_indices(len(own), 1)
    for before, after in zip(seen(own), seen(palette_of("colour_blind", own)), strict=True):
        gaps = [np.linalg.norm(x[pairs[0]] - x[pairs[1]], axis=-1).min() for x in (before, after)]
        assert gaps[1] > 1.5 * gaps[0]


def test_as_many_colours_as_a_mask_can_hold_are_all_different() -> None:
    own = np.zeros((255, 3), np.uint8)
    made = palette_of("colour_blind", own)
    assert len(np.unique(made, axis=0)) == 255
    assert not (made == 255).all(axis=1).any()


def test_a_class_keeps_near_its_own_colour() -> None:
    own = np.array([[250, 0, 0], [0, 0, 250], [0, 250, 0], [5, 5, 5]], np.uint8)
    apart = palette_of("colour_blind", own)
    turned = palette_of("colour_blind", own[[2, 0, 3, 1]])
    assert np.array_equal(apart[[2, 0, 3, 1]], turned)
    assert apart[0].argmax() == 0
    assert apart[1].argmax() == 2
    assert seen(apart)[0, :, 0].argmin() == 3


def test_the_data_set_s_own_colours_are_left_alone() -> None:
    own = LABEL_SPACES["camvid"].palette
    assert palette_of("dataset", own) is own
    assert palette_of("colour_blind", own[:1]).shape == (1, 3)
