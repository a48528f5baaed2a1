"""Drawn street scenes: determinism, exact masks, class frequencies."""

import multiprocessing

import numpy as np
import pytest
from numpy.typing import NDArray

from demo.street import CLASSES, draw_scene
from demo.street.canvas import SCALE, Camera, Canvas
from demo.street.cars import draw_car
from demo.street.classes import CAR, SKY, TRUCK
from demo.street.dice import Dice
from demo.street.heavy import draw_truck
from demo.street.light import Mood
from demo.street.sky import draw_sky

Array = NDArray[np.uint8]
NUM_SCENES = 40


@pytest.fixture(scope="module")
def scenes() -> list[tuple[Array, Array]]:
    return [draw_scene(0, index) for index in range(NUM_SCENES)]


@pytest.fixture
def canvas() -> Canvas:
    """An empty canvas: even sky, focal length 400, horizon in row 120 of 256, camera at 1.5 m."""
    camera = Camera(focal=400, centre=256, horizon=120, height=1.5, curve=0)
    flat = (200.0, 210.0, 220.0)
    mood = Mood("overcast", "clear", (1.0, 1.0, 1.0), 0.0, 0.0, flat, flat, flat, flat)
    dice = Dice(np.random.default_rng(3), wide=False)
    return Canvas(camera, mood, dice, draw_sky(camera, mood, dice))


def box_of(where: NDArray[np.bool_]) -> tuple[int, int, int, int]:
    """First and last row and column that contain a True, ends included."""
    rows, columns = np.flatnonzero(where.any(1)), np.flatnonzero(where.any(0))
    return int(rows[0]), int(rows[-1]), int(columns[0]), int(columns[-1])


def test_image_and_mask_have_the_documented_shape_type_and_range(
    scenes: list[tuple[Array, Array]],
) -> None:
    for image, mask in scenes:
        assert image.shape == (128, 256, 3)
        assert mask.shape == (128, 256)
        assert image.dtype == mask.dtype == np.uint8
        assert mask.max() < len(CLASSES)


def test_same_arguments_give_the_same_bytes(scenes: list[tuple[Array, Array]]) -> None:
    for index in (7, 0):
        image, mask = draw_scene(0, index)
        np.testing.assert_array_equal(image, scenes[index][0])
        np.testing.assert_array_equal(mask, scenes[index][1])


def test_another_process_draws_the_same_bytes(scenes: list[tuple[Array, Array]]) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        image, mask = pool.apply(draw_scene, (0, 5))
    assert image.tobytes() == scenes[5][0].tobytes()
    assert mask.tobytes() == scenes[5][1].tobytes()


def test_drawing_leaves_the_global_generator_alone() -> None:
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    draw_scene(1, 2, wide=True)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # type: ignore[index]


def test_seed_index_and_wide_each_change_the_scene(scenes: list[tuple[Array, Array]]) -> None:
    image = scenes[1][0]
    for other in (draw_scene(1, 1), draw_scene(0, 2), draw_scene(0, 1, wide=True)):
        assert (other[0] != image).mean() > 0.2


def test_every_class_occurs_and_the_common_ones_nearly_always(
    scenes: list[tuple[Array, Array]],
) -> None:
    counts = np.stack([np.bincount(mask.ravel(), minlength=len(CLASSES)) for _, mask in scenes])
    share = dict(zip(CLASSES, (counts > 8).mean(axis=0), strict=True))  # more than a speck
    assert min(share.values()) > 0
    for name in ("road", "building", "sky", "vegetation", "sidewalk", "car"):
        assert share[name] >= 0.9
    for name in ("wall", "fence", "truck"):
        assert 0.15 <= share[name] <= 0.5


def test_a_car_is_labelled_where_it_is_painted(canvas: Canvas) -> None:
    before = canvas.colours().astype(int)
    draw_car(canvas, 0.0, 10.0, 1)
    mask = canvas.mask()
    painted = (np.abs(canvas.colours().astype(int) - before) > 8).any(-1)
    assert set(np.unique(mask)) == {SKY, CAR}
    assert np.abs(np.subtract(box_of(mask == CAR), box_of(painted))).max() <= 1
    assert ((mask == CAR) != painted).mean() < 0.01


def test_a_car_is_where_the_camera_projects_it(canvas: Canvas) -> None:
    draw_car(canvas, 0.0, 10.0, 1)
    top, bottom, left, right = box_of(canvas.mask() == CAR)
    ground = (120 + 400 / 10 * 1.5) / SCALE  # 10 m ahead, 1.5 m below the camera: row 90
    assert abs(bottom - ground) <= 1
    assert 1.7 * 20 - 2 <= right - left + 1 <= 1.95 * 20 + 2  # 20 pixels a metre
    assert abs((left + right + 1) / 2 - 256 / SCALE) <= 1
    assert 1.3 * 20 <= bottom - top + 1 <= 2.0 * 20


def test_nearer_objects_hide_farther_ones(canvas: Canvas) -> None:
    draw_truck(canvas, 0.0, 20.0, 1)
    assert (canvas.mask() == TRUCK).any()
    draw_car(canvas, 0.0, 10.0, 1)
    mask = canvas.mask()
    assert mask[80, 128] == CAR
    assert (mask == TRUCK).any()
