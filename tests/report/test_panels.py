"""Panels and contact sheets: sizes, titles, legends."""

import numpy as np
import pytest
from PIL import Image

from pipeline.report.panels import (
    LegendItem,
    PanelRow,
    class_entries,
    contact_sheet,
    downscale_for_panel,
    panel,
)
from pipeline.scenes.classes import LABEL_SPACES

SPACE = LABEL_SPACES["camvid"]
LEGEND = [class_entries(SPACE.names, SPACE.palette)]
BLACK = np.zeros((640, 640, 3), np.uint8)


def sheet(height: int, width: int, *, photos: int = 2, columns: int = 2) -> Image.Image:
    picture = np.zeros((height, width, 3), np.uint8)
    titles = [f"title {column}" for column in range(columns)]
    return panel([PanelRow([picture] * columns, "key")] * photos, titles=titles, legend=LEGEND)


@pytest.mark.parametrize(
    ("size", "cell"),
    [
        ((128, 256), (256, 512)),
        ((1024, 2048), (320, 640)),
        ((4000, 1000), (640, 160)),
    ],
)
def test_a_panel_shows_pictures_at_a_readable_size(size, cell):
    one, two = sheet(*size, photos=1), sheet(*size, photos=2)
    assert two.height - one.height == cell[0] + 8 + 32  # picture, gap, and the photo's title
    if cell[1] > 300:
        assert two.width == 8 + 2 * (cell[1] + 8)


def test_a_panel_of_many_columns_fits_into_a_browser_window():
    for columns in (1, 9):
        assert 0.25 * 1400 < sheet(1024, 2048, columns=columns).width <= 1400
    one, two = (sheet(100, 1000, photos=1, columns=columns) for columns in (3, 6))
    assert two.width == one.width
    assert two.height - one.height == 30 + 46 + 8  # titles, pictures of 456 x 46, gap


def test_a_panel_enlarges_without_inventing_colours():
    picture = np.zeros((320, 320, 3), np.uint8)
    picture[::2, ::2] = [200, 0, 0]
    made = np.asarray(panel([PanelRow([picture])], titles=["x"], legend=[]))
    assert np.array_equal(made[30 : 30 + 640, 8 : 8 + 640], picture.repeat(2, 0).repeat(2, 1))


def test_a_picture_of_other_proportions_keeps_them_within_its_block():
    made = panel([PanelRow([BLACK, BLACK[:320]])], titles=["a", "b"], legend=[])
    second = np.asarray(made)[30 : 30 + 640, 656 : 656 + 640]
    assert (second[160:480] == 0).all()
    assert (second[:160] == 255).all()
    assert (second[480:] == 255).all()


def test_the_legend_shows_the_colour_of_every_class_and_every_other_sample():
    sample = np.full((18, 70, 3), [1, 2, 3], np.uint8)
    legend = [*LEGEND, [LegendItem("something long that has to be said", sample)]]
    picture = np.full((40, 320, 3), 255, np.uint8)
    made = np.asarray(panel([PanelRow([picture])], titles=["photo"], legend=legend))
    seen = {tuple(colour) for colour in made.reshape(-1, 3).tolist()}
    assert seen >= {tuple(colour) for colour in SPACE.palette.tolist()}
    assert (made == [1, 2, 3]).all(axis=2).sum() == 18 * 70


def test_a_panel_without_a_title_per_cell_is_refused():
    for lengths in ([], [2, 1]):
        rows = [PanelRow([np.zeros((4, 4, 3), np.uint8)] * length) for length in lengths]
        with pytest.raises(ValueError, match="needs rows of 2 cells, one per title, got"):
            panel(rows, titles=["a", "b"], legend=LEGEND)
    with pytest.raises(ValueError, match="a panel needs rows of some cells"):
        panel([], titles=[], legend=LEGEND)


def test_a_contact_sheet_takes_photos_of_any_proportions():
    sides = [(480, 640), (640, 480), (100, 3000), (3000, 10), (48, 64), (480, 640)]
    photos = [(f"photo {side}", np.zeros((*side, 3), np.uint8)) for side in sides]
    made = np.asarray(contact_sheet(photos))
    assert made.shape[1] <= 1400
    assert made.shape[0] == 3 * (8 + 210 + 24)  # the wide one has a row of its own
    black = (made[: 8 + 210] == 0).all(axis=2)
    assert black[:, 8 : 8 + 280].sum() == 210 * 280  # 4:3, whole
    assert black.sum() == 210 * (280 + 158)


def test_large_photos_are_reduced_by_a_whole_factor_before_anything_is_drawn():
    image, shrink = downscale_for_panel(Image.new("RGB", (2561, 1001)))
    assert (image.shape, shrink) == ((334, 854, 3), 3)
    assert np.zeros((1001, 2561))[::3, ::3].shape == (334, 854)
    assert downscale_for_panel(Image.new("RGB", (1280, 7)))[1] == 1
