"""Laws of the geometry: how far a cached grid may be from what it samples, and shares of covers."""

import math

import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.views import Box, View, grid_positions, sample_grid

Size = tuple[int, int]


def sizes(low: int, high: int) -> st.SearchStrategy[Size]:
    return st.tuples(st.integers(low, high), st.integers(low, high))


@st.composite
def views_of(draw: st.DrawFn, image_size: Size) -> View:
    """A view anywhere in a photo, of a hundredth of a pixel or all of it, one pixel or many."""
    shares = st.floats(0, 1, width=32)
    height, width = (0.01 + draw(shares) * (side - 0.01) for side in image_size)
    top, left = draw(shares) * (image_size[0] - height), draw(shares) * (image_size[1] - width)
    return View(Box(top, left, height, width), draw(sizes(1, 12)), draw(st.booleans()))


def places(view: View) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows and columns of the photo's plane that the centres of a view's pixels show."""
    down, across = (
        start + length * (torch.arange(count, dtype=torch.float64) + 0.5) / count
        for start, length, count in zip(view.box[:2], view.box[2:], view.size, strict=True)
    )
    return down, across.flip(0) if view.flipped else across


def centres(side: int, cells: int) -> torch.Tensor:
    """Where the centres of a grid's cells lie on the photo's plane."""
    return (torch.arange(cells, dtype=torch.float64) + 0.5) * side / cells


@given(st.data(), sizes(1, 60), sizes(1, 12))
def test_a_smooth_field_is_read_to_the_error_of_linear_interpolation(data, image_size, cells):
    """Between two centres d apart a line misses f by d^2 / 8 max |f''|; the axes' errors add up."""
    view = data.draw(views_of(image_size))
    waves = data.draw(st.tuples(st.floats(-0.3, 0.3), st.floats(-0.3, 0.3)))  # radians a pixel

    def field(down: torch.Tensor, across: torch.Tensor) -> torch.Tensor:
        return torch.sin(waves[0] * down[:, None] + waves[1] * across)

    grid = field(*(centres(side, count) for side, count in zip(image_size, cells, strict=True)))
    rows, columns = grid_positions(view, image_size, cells)
    read = sample_grid(grid.float()[None, None], rows[None], columns[None])[0, 0]
    # beyond the outermost centres a grid knows nothing and says what it says there
    known = [
        place.clamp(0.5 * side / count, side - 0.5 * side / count)
        for place, side, count in zip(places(view), image_size, cells, strict=True)
    ]
    steps = (side / count for side, count in zip(image_size, cells, strict=True))
    bound = sum((step * wave) ** 2 / 8 for step, wave in zip(steps, waves, strict=True))
    assert (read - field(*known)).abs().max() <= bound + 1e-5  # float32


@given(st.data(), sizes(1, 60), sizes(1, 9), st.booleans())
def test_a_window_of_whole_cells_read_at_its_cells_is_those_cells(data, image_size, cells, flipped):
    high, wide = (data.draw(st.integers(1, count)) for count in cells)
    top, left = (
        data.draw(st.integers(0, cells[0] - high)),
        data.draw(st.integers(0, cells[1] - wide)),
    )
    step_y, step_x = (side / count for side, count in zip(image_size, cells, strict=True))
    box = Box(top * step_y, left * step_x, high * step_y, wide * step_x)
    grid = torch.rand(2, *cells, generator=torch.Generator().manual_seed(0))
    rows, columns = grid_positions(View(box, (high, wide), flipped), image_size, cells)
    wanted = grid[:, top : top + high, left : left + wide]
    read = sample_grid(grid[None], rows[None], columns[None])[0]
    torch.testing.assert_close(read, wanted.flip(2) if flipped else wanted, atol=1e-5, rtol=0)


def test_the_error_of_interpolation_is_reached_half_way_between_two_centres():
    """The bound above is no looser than need be: a parabola over 2 cells of 4 pixels."""
    grid = (centres(8, 2) - 4)[None, None, :, None].float() ** 2
    rows, columns = grid_positions(View(Box(3.5, 0, 1, 1), (1, 1)), (8, 1), (2, 1))
    error = float(sample_grid(grid, rows[None], columns[None]))
    assert math.isclose(error, 4**2 / 8 * 2)
