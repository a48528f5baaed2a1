"""Geometry: crops, local windows, flips and grids."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from pipeline.views import (
    Box,
    View,
    cut_image,
    draw_global_view,
    draw_local_box,
    grid_positions,
    sample_grid,
    sub_view,
)

Size = tuple[int, int]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(size: Size, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def cut(pixels: np.ndarray, view: View) -> np.ndarray:
    """`cut_image` from array to array, wide enough to subtract."""
    return np.asarray(cut_image(Image.fromarray(pixels), view)).astype(int)


def sample(grid: torch.Tensor, view: View, image_size: Size) -> torch.Tensor:
    """A grid ``[C, gh, gw]`` read at a view: ``[C, h, w]``."""
    rows, columns = grid_positions(view, image_size, (grid.shape[1], grid.shape[2]))
    return sample_grid(grid[None], rows[None], columns[None])[0]


def sizes(low: int, high: int) -> st.SearchStrategy[Size]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def photos_and_views(draw: st.DrawFn, smallest: int = 1) -> tuple[Size, View]:
    """A photo's size and a view anywhere in it, with fractional edges."""
    image_size, size = draw(sizes(3, 24)), draw(sizes(smallest, 16))
    shares = st.floats(0, 1, width=32)
    height, width = (0.5 + draw(shares) * (side - 0.5) for side in image_size)
    top, left = draw(shares) * (image_size[0] - height), draw(shares) * (image_size[1] - width)
    return image_size, View(Box(top, left, height, width), size, draw(st.booleans()))


@st.composite
def windows_in(draw: st.DrawFn, size: Size) -> Box:
    """A window of whole pixels in a view of ``size``."""
    height, width = (draw(st.integers(1, side)) for side in size)
    top = draw(st.integers(0, size[0] - height))
    return Box(top, draw(st.integers(0, size[1] - width)), height, width)


# drawing views


def drawn(image_size: Size, *, crop: Size, scale: tuple[float, float], seed: int = 0) -> View:
    return draw_global_view(
        image_size, base_size=(128, 256), scale=scale, crop=crop, flip=0.5, generator=seeded(seed)
    )


@pytest.mark.parametrize("image_size", [(128, 256), (64, 128), (1024, 2048)])
def test_a_crop_of_the_base_size_at_scale_1_is_the_whole_photo(image_size):
    view = drawn(image_size, crop=(128, 256), scale=(1, 1))
    assert view.box == (0, 0, *image_size)
    assert view.size == (128, 256)


def test_a_photo_is_fitted_into_the_base_size_and_then_magnified():
    # 100 x 400 fits into 128 x 256 at 0.64; magnified 1.25 times it is 80 x 320, zoom 0.8.
    view = drawn((100, 400), crop=(40, 80), scale=(1.25, 1.25))
    assert view.box[2:] == pytest.approx((50, 100))


def test_a_photo_smaller_than_the_crop_is_magnified_just_so_far_that_the_crop_fits():
    # 100 x 400 at 0.64 is 64 x 256: a crop 96 high needs zoom 0.96.
    view = drawn((100, 400), crop=(96, 96), scale=(1, 1))
    assert view.box.top == pytest.approx(0)
    assert view.box[2:] == pytest.approx((100, 100))


@given(sizes(1, 600), sizes(1, 200), st.floats(0.3, 3), st.floats(0, 2), st.integers(0, 99))
def test_a_crop_lies_in_the_photo_and_keeps_its_shape(image_size, crop, low, more, seed):
    view = drawn(image_size, crop=crop, scale=(low, low + more), seed=seed)
    box = view.box
    assert min(box[:2]) >= -1e-9
    assert box.top + box.height <= image_size[0] * (1 + 1e-12)
    assert box.left + box.width <= image_size[1] * (1 + 1e-12)
    assert crop[0] / box.height == pytest.approx(crop[1] / box.width)


def test_crops_reach_every_edge_and_use_the_whole_range_of_scales():
    views = [drawn((128, 256), crop=(64, 64), scale=(1, 2), seed=seed) for seed in range(300)]
    heights = [view.box.height for view in views]
    assert 32 <= min(heights) < 33
    assert 63 < max(heights) <= 64
    assert min(view.box.top for view in views) < 1
    assert max(view.box.left + view.box.width for view in views) > 254
    assert 0.4 < np.mean([view.flipped for view in views]) < 0.6


@pytest.mark.parametrize(("flip", "flipped"), [(0.0, False), (1.0, True)])
def test_flip_0_never_mirrors_and_flip_1_always(flip, flipped):
    generator = seeded(1)
    arguments = {"base_size": (9, 9), "scale": (1.0, 1.0), "crop": (4, 4), "flip": flip}
    views = [draw_global_view((9, 9), **arguments, generator=generator) for _ in range(50)]
    assert {view.flipped for view in views} == {flipped}


def test_local_boxes_take_every_place_the_last_offset_included():
    generator = seeded(0)
    boxes = {draw_local_box((3, 5), (2, 2), generator=generator) for _ in range(300)}
    assert boxes == {Box(top, left, 2, 2) for top in range(2) for left in range(4)}


# windows of views


@pytest.mark.parametrize(("flipped", "left"), [(False, 40), (True, 68)])
def test_sub_view_worked_by_hand(flipped, left):
    view = View(Box(10, 20, 40, 80), (20, 40), flipped)  # 2 pixels of the photo a pixel
    # mirrored, the 6 columns from 10 on are those from 40 - 10 - 6 = 24 on: 20 + 2 * 24 = 68
    assert sub_view(view, Box(5, 10, 4, 6)) == View(Box(20, left, 8, 12), (4, 6), flipped)


@given(st.data())
def test_a_local_view_of_the_photo_is_the_window_of_its_global_view(data):
    image_size, view = data.draw(photos_and_views())
    window = data.draw(windows_in(view.size))
    pixels = noise(image_size)
    top, left, height, width = window
    inside = cut(pixels, view)[top : top + height, left : left + width]
    assert np.abs(cut(pixels, sub_view(view, window)) - inside).max() <= 1  # both are rounded


@given(st.data())
def test_a_local_view_of_a_grid_is_the_window_of_its_global_view(data):
    image_size, view = data.draw(photos_and_views())
    window = data.draw(windows_in(view.size))
    grid = torch.rand(2, *data.draw(sizes(1, 9)), generator=seeded(0))
    top, left, height, width = window
    inside = sample(grid, view, image_size)[:, top : top + height, left : left + width]
    torch.testing.assert_close(
        sample(grid, sub_view(view, window), image_size), inside, atol=1e-4, rtol=0
    )


# cutting photos


def test_the_whole_photo_at_its_own_size_stays_as_it_is():
    pixels = noise((5, 7))
    assert np.array_equal(cut(pixels, View(Box(0, 0, 5, 7), (5, 7))), pixels)
    assert np.array_equal(cut(pixels, View(Box(0, 0, 5, 7), (5, 7), True)), pixels[:, ::-1])


@pytest.mark.parametrize("flipped", [False, True])
def test_a_box_of_one_pixel_shows_that_pixel(flipped):
    pixels = noise((5, 7))
    for row, column in [(0, 0), (3, 5), (4, 6)]:
        view = View(Box(row, column, 1, 1), (1, 1), flipped)
        assert np.array_equal(cut(pixels, view)[0, 0], pixels[row, column])
        grid = torch.arange(35.0).reshape(1, 5, 7)
        assert sample(grid, view, (5, 7)).item() == pytest.approx(7 * row + column)


def test_shrinking_averages_instead_of_skipping_pixels():
    board = (255 * (np.indices((9, 9)).sum(axis=0) % 2)).astype(np.uint8)
    view = View(Box(0, 0, 9, 9), (3, 3))
    assert abs(cut(board[..., None].repeat(3, axis=2), view)[1, 1, 0] - 127.5) < 4


@given(photos_and_views())
def test_crop_then_flip_is_flip_then_crop_for_photos(photo_and_view):
    image_size, view = photo_and_view
    box = view.box
    mirrored = View(box._replace(left=image_size[1] - box.left - box.width), view.size)
    crop_first = cut(noise(image_size), View(box, view.size, flipped=True))
    flip_first = cut(np.ascontiguousarray(noise(image_size)[:, ::-1]), mirrored)
    assert np.abs(crop_first - flip_first).max() <= 1


@given(photos_and_views(), sizes(1, 9))
def test_crop_then_flip_is_flip_then_crop_for_grids(photo_and_view, grid_size):
    image_size, view = photo_and_view
    box = view.box
    grid = torch.rand(2, *grid_size, generator=seeded(0))
    mirrored = View(box._replace(left=image_size[1] - box.left - box.width), view.size)
    crop_first = sample(grid, View(box, view.size, flipped=True), image_size)
    flip_first = sample(grid.flip(2), mirrored, image_size)
    torch.testing.assert_close(crop_first, flip_first, atol=1e-4, rtol=0)


# reading grids


@pytest.mark.parametrize("flipped", [False, True])
def test_grid_positions_worked_by_hand(flipped):
    view = View(Box(0, 0, 4, 8), (4, 4), flipped)
    rows, columns = grid_positions(view, (4, 8), (2, 4))
    assert rows.tolist() == [0, 0.25, 0.75, 1]  # from -0.25 to 1.25, kept on the grid
    assert columns.tolist() == ([3, 2, 1, 0] if flipped else [0, 1, 2, 3])
    assert rows.dtype == columns.dtype == torch.float32


@given(sizes(1, 12), sizes(1, 40))
def test_sampling_the_whole_photo_equals_interpolate(grid_size, size):
    grid = torch.rand(3, *grid_size, generator=seeded(0))
    wanted = F.interpolate(grid[None], size, mode="bilinear", align_corners=False)[0]
    sampled = sample(grid, View(Box(0, 0, *size), size), size)
    torch.testing.assert_close(sampled, wanted, atol=1e-5, rtol=0)


@given(photos_and_views(), sizes(1, 9), sizes(0, 5))
def test_sampling_ignores_padding(photo_and_view, grid_size, extra):
    image_size, view = photo_and_view
    grid = torch.rand(2, *grid_size, generator=seeded(0))
    padded = F.pad(grid, (0, extra[1], 0, extra[0]), value=10)
    rows, columns = grid_positions(view, image_size, grid_size)
    torch.testing.assert_close(
        sample_grid(padded[None], rows[None], columns[None])[0],
        sample(grid, view, image_size),
        atol=1e-4,
        rtol=0,
    )


def test_each_grid_of_a_batch_is_read_at_its_own_positions():
    grids = torch.arange(12.0).reshape(2, 1, 2, 3)
    rows, columns = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0, 2.0], [0.5, 1.0]])
    read = sample_grid(grids, rows, columns)[:, 0, 0]
    torch.testing.assert_close(read, torch.tensor([[0, 2], [9.5, 10]]))
