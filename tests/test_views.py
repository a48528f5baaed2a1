"""Geometry: crops, local windows, flips, reading cached grids, covers of windows and blending."""

import itertools

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
    blend,
    cover,
    cut_image,
    draw_global_view,
    draw_local_box,
    fitted_size,
    grid_positions,
    level_size,
    sample_grid,
    sub_view,
)

Size = tuple[int, int]


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(size: Size) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)


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
def photos_and_views(draw: st.DrawFn, smallest: float = 0.5) -> tuple[Size, View]:
    """A photo's size and a view anywhere in it, with fractional edges."""
    image_size, shares = draw(sizes(3, 24)), st.floats(0, 1, width=32)
    height, width = (smallest + draw(shares) * (side - smallest) for side in image_size)
    top, left = draw(shares) * (image_size[0] - height), draw(shares) * (image_size[1] - width)
    return image_size, View(Box(top, left, height, width), draw(sizes(1, 16)), draw(st.booleans()))


def drawn(image_size: Size, *, crop: Size, scale: tuple[float, float], seed: int = 0) -> View:
    return draw_global_view(
        image_size, base_size=(128, 256), scale=scale, crop=crop, flip=0.5, generator=seeded(seed)
    )


def test_global_views_worked_by_hand() -> None:
    view = drawn((1024, 2048), crop=(128, 256), scale=(1, 1))
    assert (view.box, view.size) == ((0, 0, 1024, 2048), (128, 256))
    # 100 x 400 fits into 128 x 256 at 0.64; magnified 1.25 times it is 80 x 320, zoom 0.8.
    view = drawn((100, 400), crop=(40, 80), scale=(1.25, 1.25))
    assert view.box[2:] == pytest.approx((50, 100))
    # 100 x 400 at 0.64 is 64 x 256: a crop 96 high needs zoom 0.96.
    view = drawn((100, 400), crop=(96, 96), scale=(1, 1))
    assert view.box.top == pytest.approx(0)
    assert view.box[2:] == pytest.approx((100, 100))


@given(sizes(1, 600), sizes(1, 200), st.floats(0.3, 3), st.floats(0, 2), st.integers(0, 99))
def test_a_crop_lies_in_the_photo_and_keeps_its_shape(image_size, crop, low, more, seed):
    box = drawn(image_size, crop=crop, scale=(low, low + more), seed=seed).box
    assert min(box[:2]) >= -1e-9
    assert box.top + box.height <= image_size[0] * (1 + 1e-12)
    assert box.left + box.width <= image_size[1] * (1 + 1e-12)
    assert crop[0] / box.height == pytest.approx(crop[1] / box.width)


def test_crops_reach_every_edge_and_use_the_whole_range_of_scales() -> None:
    views = [drawn((128, 256), crop=(64, 64), scale=(1, 2), seed=seed) for seed in range(300)]
    heights = [view.box.height for view in views]
    assert 32 <= min(heights) < 33
    assert 63 < max(heights) <= 64
    assert min(view.box.top for view in views) < 1
    assert max(view.box.left + view.box.width for view in views) > 254
    assert 0.4 < np.mean([view.flipped for view in views]) < 0.6


def test_local_boxes_take_every_place_the_last_offset_included() -> None:
    generator = seeded(0)
    boxes = {draw_local_box((3, 5), (2, 2), generator=generator) for _ in range(300)}
    assert boxes == {Box(top, left, 2, 2) for top in range(2) for left in range(4)}


@pytest.mark.parametrize(("flipped", "left"), [(False, 40), (True, 68)])
def test_sub_view_worked_by_hand(flipped: bool, left: int) -> None:
    view = View(Box(10, 20, 40, 80), (20, 40), flipped)  # 2 pixels of the photo per pixel
    # mirrored, the 6 columns from 10 on are those from 40 - 10 - 6 = 24 on: 20 + 2 * 24 = 68
    assert sub_view(view, Box(5, 10, 4, 6)) == View(Box(20, left, 8, 12), (4, 6), flipped)


@given(st.data(), photos_and_views(), sizes(1, 9))
def test_a_local_view_is_the_window_of_its_global_view(data, photo_and_view, grid_size):
    image_size, view = photo_and_view
    height, width = (data.draw(st.integers(1, side)) for side in view.size)
    top, left = (
        data.draw(st.integers(0, outer - inner))
        for outer, inner in zip(view.size, (height, width), strict=True)
    )
    local, window = sub_view(view, Box(top, left, height, width)), np.s_[top : top + height]
    pixels, grid = noise(image_size), torch.rand(2, *grid_size, generator=seeded(0))
    inside = cut(pixels, view)[window, left : left + width]
    assert np.abs(cut(pixels, local) - inside).max() <= 1  # both are rounded
    inside = sample(grid, view, image_size)[:, window, left : left + width]
    torch.testing.assert_close(sample(grid, local, image_size), inside, atol=1e-4, rtol=0)


@given(photos_and_views(), sizes(1, 9))
def test_crop_then_flip_is_flip_then_crop(photo_and_view, grid_size):
    image_size, view = photo_and_view
    box, pixels = view.box, noise(image_size)
    flipped = View(box, view.size, flipped=True)
    mirrored = View(box._replace(left=image_size[1] - box.left - box.width), view.size)
    flip_first = cut(np.ascontiguousarray(pixels[:, ::-1]), mirrored)
    assert np.abs(cut(pixels, flipped) - flip_first).max() <= 1
    grid = torch.rand(2, *grid_size, generator=seeded(0))
    flip_first = sample(grid.flip(2), mirrored, image_size)
    torch.testing.assert_close(sample(grid, flipped, image_size), flip_first, atol=1e-4, rtol=0)


def test_images_are_cut_exactly_and_averaged_where_they_shrink() -> None:
    pixels = noise((5, 7))
    assert np.array_equal(cut(pixels, View(Box(0, 0, 5, 7), (5, 7))), pixels)
    assert np.array_equal(cut(pixels, View(Box(0, 0, 5, 7), (5, 7), True)), pixels[:, ::-1])
    assert np.array_equal(cut(pixels, View(Box(4, 6, 1, 1), (1, 1)))[0, 0], pixels[4, 6])
    board = (255 * (np.indices((9, 9)).sum(axis=0) % 2)).astype(np.uint8)
    view = View(Box(0, 0, 9, 9), (3, 3))
    assert abs(cut(board[..., None].repeat(3, axis=2), view)[1, 1, 0] - 127.5) < 4


# reading grids


@pytest.mark.parametrize("flipped", [False, True])
def test_grid_positions_worked_by_hand(flipped: bool) -> None:
    view = View(Box(0, 0, 4, 8), (4, 4), flipped)
    rows, columns = grid_positions(view, (4, 8), (2, 4))
    assert rows.tolist() == [0, 0.25, 0.75, 1]  # from -0.25 to 1.25, clamped to the grid
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
    read = sample_grid(padded[None], rows[None], columns[None])[0]
    torch.testing.assert_close(read, sample(grid, view, image_size), atol=1e-4, rtol=0)


def test_each_grid_of_a_batch_is_read_at_its_own_positions() -> None:
    grids = torch.arange(12.0).reshape(2, 1, 2, 3)
    rows, columns = torch.tensor([[0.0], [1.0]]), torch.tensor([[0.0, 2.0], [0.5, 1.0]])
    read = sample_grid(grids, rows, columns)[:, 0, 0]
    torch.testing.assert_close(read, torch.tensor([[0, 2], [9.5, 10]]))


def centres(start: float, length: float, count: int) -> torch.Tensor:
    """Centres of ``count`` equal cells of a line."""
    return start + (torch.arange(count, dtype=torch.float64) + 0.5) * length / count


@given(photos_and_views(smallest=0.01), sizes(1, 12), st.floats(-0.3, 0.3), st.floats(-0.3, 0.3))
def test_a_smooth_field_is_read_to_the_error_of_linear_interpolation(
    photo_and_view, cells, wave_y, wave_x
):
    """Between two centres d apart a line misses f by d^2 / 8 max |f''|; the axes' errors add up."""
    image_size, view = photo_and_view

    def field(down: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        return torch.sin(wave_y * down[:, None] + wave_x * across)

    steps = [side / count for side, count in zip(image_size, cells, strict=True)]
    grid = field(*(centres(0, side, n) for side, n in zip(image_size, cells, strict=True)))
    down, across = (  # beyond the outermost centres a grid has the values that it has there
        centres(*line).clamp(0.5 * step, side - 0.5 * step)
        for *line, step, side in zip(
            view.box[:2], view.box[2:], view.size, steps, image_size, strict=True
        )
    )
    wanted = field(down, across.flip(0) if view.flipped else across)
    error = (sample(grid.float()[None], view, image_size)[0] - wanted).abs().max()
    bound = sum((step * wave) ** 2 / 8 for step, wave in zip(steps, (wave_y, wave_x), strict=True))
    assert error <= bound + 1e-5  # float32


# covers


def test_a_level_is_the_nearest_whole_number_of_patches() -> None:
    for size, zoom, wanted in (
        ((128, 256), 2, (256, 512)),
        ((100, 75), 1, (96, 80)),
        ((5, 5), 1, (16, 16)),
    ):
        assert level_size(size, zoom=zoom, patch_size=16) == wanted


def test_photos_are_fitted_into_the_base_size_in_whole_strides() -> None:
    for image_size, wanted in (
        ((128, 192), (64, 96)),
        ((32, 48), (64, 96)),  # small photos are magnified
        ((100, 100), (64, 64)),  # the aspect ratio is kept
        ((10, 96), (8, 96)),  # 10 rows are nearer to one stride than to two,
        ((15, 96), (16, 96)),  # 15 are not
        ((1, 900), (8, 96)),  # at least one
    ):
        assert fitted_size(image_size, base_size=(64, 96), stride=8) == wanted


def test_cover_and_blend_worked_by_hand() -> None:
    boxes = cover((32, 64), window=(32, 32), overlap=0.5, patch_size=16)
    assert boxes == [Box(0, 0, 32, 32), Box(0, 16, 32, 32), Box(0, 32, 32, 32)]
    patches = torch.tensor([[[[1.0, 1.0]]], [[[3.0, 5.0]]]])
    whole = blend(patches, [Box(0, 0, 1, 2), Box(0, 1, 1, 2)], size=(1, 3))
    assert whole.tolist() == [[[1, 2, 5]]]


@given(
    sizes(1, 30),
    sizes(1, 12),
    st.sampled_from([0, 0.2, 0.5, 0.6, 0.75, 0.9]),
    st.sampled_from([1, 14, 16]),
)
def test_covers_reach_every_cell_and_blending_their_windows_gives_the_grid_back(
    cells, window, overlap, patch
):
    boxes = cover(
        (cells[0] * patch, cells[1] * patch),
        window=(window[0] * patch, window[1] * patch),
        overlap=overlap,
        patch_size=patch,
    )
    assert all(edge % patch == 0 for box in boxes for edge in box)
    inner = [Box(*(edge // patch for edge in box)) for box in boxes]
    seen = np.zeros(cells, dtype=int)
    for top, left, height, width in inner:
        assert (height, width) == (min(window[0], cells[0]), min(window[1], cells[1]))
        assert 0 <= top <= cells[0] - height
        assert 0 <= left <= cells[1] - width
        seen[top : top + height, left : left + width] += 1
    assert seen.min() >= 1
    assert len(set(boxes)) == len(boxes)
    grid = torch.rand(2, *cells, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    patches = torch.stack([grid[:, t : t + h, x : x + w] for t, x, h, w in inner])
    torch.testing.assert_close(blend(patches, inner, size=cells), grid)
    ones = blend(torch.ones_like(patches), inner, size=cells)
    assert torch.equal(ones, torch.ones_like(grid))


@given(st.integers(1, 60), st.integers(1, 12), st.sampled_from([0, 0.2, 0.25, 0.5, 0.6, 0.9]))
def test_neighbours_overlap_at_least_as_asked(cells, window, overlap):
    boxes = cover((1, cells), window=(1, window), overlap=overlap, patch_size=1)
    for start, following in itertools.pairwise(box.left for box in boxes):
        shared = start + window - following
        assert shared >= overlap * window - 1e-9 or following - start == 1  # one patch: no closer


def test_a_window_that_is_no_multiple_of_the_patch_is_refused() -> None:
    message = r"params.yaml: clip.levels: window must be a multiple of CLIP's patch of 16 pixels, "
    with pytest.raises(ValueError, match=message + r"got \[64, 60\]"):
        cover((64, 64), window=(64, 60), overlap=0.5, patch_size=16)
