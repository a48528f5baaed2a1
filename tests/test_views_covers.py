"""Geometry: the magnified photo, covers of it by windows, and their blending."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.views import Box, blend, cover, fitted_size, level_size

Size = tuple[int, int]


def sizes(low: int, high: int) -> st.SearchStrategy[Size]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@pytest.mark.parametrize(
    ("size", "zoom", "wanted"),
    [((128, 256), 2, (256, 512)), ((100, 75), 1, (96, 80)), ((5, 5), 1, (16, 16))],
)
def test_a_level_is_the_nearest_whole_number_of_patches(size, zoom, wanted):
    assert level_size(size, zoom=zoom, patch_size=16) == wanted


@pytest.mark.parametrize(
    ("image_size", "wanted"),
    [
        ((64, 96), (64, 96)),
        ((128, 192), (64, 96)),
        ((32, 48), (64, 96)),  # small photos are magnified
        ((100, 100), (64, 64)),  # fitted, shape kept
        ((10, 96), (8, 96)),  # 10 rows are nearer to one stride than to two,
        ((15, 96), (16, 96)),  # 15 are not
        ((1, 900), (8, 96)),  # at least one
    ],
)
def test_photos_are_fitted_into_the_base_size_in_whole_strides(image_size, wanted):
    assert fitted_size(image_size, base_size=(64, 96), stride=8) == wanted


def test_cover_worked_by_hand():
    boxes = cover((32, 64), window=(32, 32), overlap=0.5, patch_size=16)
    assert boxes == [Box(0, 0, 32, 32), Box(0, 16, 32, 32), Box(0, 32, 32, 32)]


@st.composite
def covers(draw: st.DrawFn) -> tuple[Size, Size, float, int]:
    """Sizes in cells, odd ones too: photo and window; the overlap; the patch."""
    overlap = draw(st.sampled_from([0, 0.2, 0.25, 0.5, 0.6, 0.75, 0.9]))
    return draw(sizes(1, 30)), draw(sizes(1, 12)), overlap, draw(st.sampled_from([1, 14, 16]))


@settings(max_examples=150)
@given(covers())
def test_covers_reach_every_cell_inside_the_photo_on_the_patch_grid(case):
    cells, window, overlap, patch = case
    boxes = cover(
        (cells[0] * patch, cells[1] * patch),
        window=(window[0] * patch, window[1] * patch),
        overlap=overlap,
        patch_size=patch,
    )
    seen = np.zeros(cells, dtype=int)
    for box in boxes:
        assert all(edge % patch == 0 for edge in box)
        top, left, height, width = (edge // patch for edge in box)
        assert min(top, left) >= 0
        assert (height, width) == (min(window[0], cells[0]), min(window[1], cells[1]))
        assert top + height <= cells[0]
        assert left + width <= cells[1]
        seen[top : top + height, left : left + width] += 1
    assert seen.min() >= 1
    assert len(set(boxes)) == len(boxes)


@settings(max_examples=150)
@given(st.integers(1, 60), st.integers(1, 12), st.sampled_from([0, 0.2, 0.25, 0.5, 0.6, 0.9]))
def test_neighbours_overlap_at_least_as_asked(cells, window, overlap):
    boxes = cover((1, cells), window=(1, window), overlap=overlap, patch_size=1)
    starts = [box.left for box in boxes]
    for start, following in itertools.pairwise(starts):
        shared = start + window - following
        assert shared >= overlap * window - 1e-9 or following - start == 1  # one patch: no closer


def test_a_window_that_is_no_multiple_of_the_patch_is_refused():
    message = (
        r"params.yaml: clip.levels: window must be a multiple of CLIP's patch of 16 pixels, "
        r"got \[64, 60\]"
    )
    with pytest.raises(ValueError, match=message):
        cover((64, 64), window=(64, 60), overlap=0.5, patch_size=16)


def test_blend_worked_by_hand():
    patches = torch.tensor([[[[1.0, 1.0]]], [[[3.0, 5.0]]]])
    whole = blend(patches, [Box(0, 0, 1, 2), Box(0, 1, 1, 2)], size=(1, 3))
    assert whole.tolist() == [[[1, 2, 5]]]


@given(covers())
def test_blending_the_windows_of_a_grid_gives_the_grid_back(case):
    cells, window, overlap, _ = case
    boxes = cover(cells, window=window, overlap=overlap, patch_size=1)
    grid = torch.rand(2, *cells, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    patches = torch.stack([grid[:, t : t + h, x : x + w] for t, x, h, w in boxes])
    torch.testing.assert_close(blend(patches, boxes, size=cells), grid)
    ones = blend(torch.ones_like(patches), boxes, size=cells)
    assert torch.equal(ones, torch.ones_like(grid))
