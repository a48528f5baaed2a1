"""Masks in colour, overlays, regions, heat maps, and the colour-blind palette."""

import numpy as np
import pytest
from PIL import Image

from pipeline.report.drawing import (
    IGNORE_COLOUR,
    MARK_OUTLINE,
    changes,
    colour_mask,
    heat,
    mark_region,
    overlay,
    palette_of,
    save_png,
)
from pipeline.scenes.classes import LABEL_SPACES

PALETTE = np.array([[200, 0, 0], [0, 100, 0]], np.uint8)
RED, GREEN, WHITE = [200, 0, 0], [0, 100, 0], list(IGNORE_COLOUR)

# Vienot, Brettel, Mollon 1999, another model than the one that chose the colours: linear RGB ->
# what protanopes and deuteranopes see.
VIENOT = [
    np.eye(3),
    np.array([[0.11238, 0.88762, 0], [0.11238, 0.88762, 0], [0.00401, -0.00401, 1]]),
    np.array([[0.29275, 0.70725, 0], [0.29275, 0.70725, 0], [-0.02234, 0.02234, 1]]),
]
XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def test_each_class_gets_its_colour_and_ignored_pixels_white():
    mask = np.array([[0, 1, 255], [1, 0, 2]], np.uint8)
    painted = colour_mask(mask, PALETTE)
    assert painted.dtype == np.uint8
    assert painted.tolist() == [[RED, GREEN, WHITE], [GREEN, RED, WHITE]]


def test_overlay_blends_the_colour_and_leaves_ignored_pixels_unchanged():
    image = np.full((1, 2, 3), 100, np.uint8)
    mixed = overlay(image, np.array([[0, 255]], np.uint8), PALETTE, alpha=0.25)
    assert mixed.dtype == np.uint8
    assert mixed.tolist() == [[[125, 75, 75], [100, 100, 100]]]


def test_changes_are_drawn_on_the_faded_image():
    image = np.array([[[0, 0, 0], [90, 0, 0], [255, 255, 255]]], np.uint8)
    before, after = np.array([[0, 1, 1]]), np.array([[1, 1, 255]])
    drawn = changes(image, before, after, PALETTE)
    assert drawn.dtype == np.uint8
    assert drawn.tolist() == [[GREEN, [176, 176, 176], WHITE]]  # 165 + 0.35 * 30


def test_a_marked_region_has_an_outline_and_stripes_and_leaves_the_rest_alone():
    image = np.full((20, 20, 3), 100, np.uint8)
    region = np.zeros((20, 20), bool)
    region[4:18, 4:20] = True  # up to the border, where there is no outline
    drawn = mark_region(image, region)
    assert (drawn[~region] == 100).all()
    outline = region.copy()
    outline[5:17, 5:20] = False
    assert np.array_equal((drawn == MARK_OUTLINE).all(axis=2), outline)
    inside = {tuple(colour) for colour in drawn[5:17, 5:20].reshape(-1, 3).tolist()}
    assert len(inside) == 2
    grey = [sum(colour) for colour in [*inside, MARK_OUTLINE]]
    assert min(np.diff(sorted(grey))) > 40  # they differ in lightness


def test_heat_grows_lighter_up_to_its_top():
    drawn = heat(np.array([[0.0, 0.1, 0.2, 0.9, np.inf]]), 0.2).astype(int)
    sums = drawn.sum(axis=2)[0].tolist()
    assert sums[0] < sums[1] < sums[2] == sums[3] == sums[4]


def test_a_saved_image_has_its_pixels_and_no_date(tmp_path):
    image = colour_mask(np.arange(12).reshape(3, 4) % 3, PALETTE)
    save_png(tmp_path / "array.png", image)
    with Image.open(tmp_path / "array.png") as opened:
        assert np.array_equal(np.asarray(opened), image)
        assert opened.info == {}


def cielab(colours: np.ndarray, vision: np.ndarray) -> np.ndarray:
    share = colours / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    x, y, z = np.cbrt((linear @ vision.T).clip(1e-4, 1) @ XYZ.T / XYZ.sum(axis=1)).T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)


def least_distance(colours: np.ndarray) -> float:
    """Between the two most alike colours, over all kinds of colour vision."""
    first, second = np.triu_indices(len(colours), 1)
    looks = (cielab(colours, vision) for vision in VIENOT)
    return min(float(np.linalg.norm(look[first] - look[second], axis=-1).min()) for look in looks)


@pytest.mark.parametrize("name", ["cityscapes", "wilddash2"])
def test_colours_are_distinguishable_for_colour_blind_people(name: str) -> None:
    own = LABEL_SPACES[name].palette
    made = palette_of("colour_blind", own)
    assert (made.shape, made.dtype) == (own.shape, np.uint8)
    assert least_distance(made) > 3 * least_distance(own)
    assert least_distance(np.vstack([made, [[255, 255, 255]]])) > 5  # 2.3 is just noticeable


def test_all_255_colours_differ_and_none_is_white() -> None:
    made = palette_of("colour_blind", np.zeros((255, 3), np.uint8))
    assert len(np.unique(made, axis=0)) == 255
    assert not (made == 255).all(axis=1).any()


def test_a_class_keeps_close_to_its_own_colour() -> None:
    own = np.array([[250, 0, 0], [0, 0, 250], [0, 250, 0], [5, 5, 5]], np.uint8)
    apart = palette_of("colour_blind", own)
    turned = palette_of("colour_blind", own[[2, 0, 3, 1]])
    assert np.array_equal(apart[[2, 0, 3, 1]], turned)
    assert apart[0].argmax() == 0
    assert apart[1].argmax() == 2
    assert palette_of("dataset", own) is own
