"""Pictures: colours where they belong, sizes, titles, equal bytes."""

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from pipeline.label_spaces import LABEL_SPACES
from pipeline.metrics import confusion
from pipeline.visualise import (
    IGNORE_COLOUR,
    colour_mask,
    confusion_figure,
    iou_bars,
    overlay,
    panel,
    save_png,
)

SPACE = LABEL_SPACES["camvid"]
PALETTE = np.array([[200, 0, 0], [0, 100, 0]], np.uint8)
RED, GREEN, WHITE = [200, 0, 0], [0, 100, 0], list(IGNORE_COLOUR)


def counts() -> np.ndarray:
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 9, (30, 40))  # two classes in no mask
    pred = np.where(rng.random(mask.shape) < 0.6, mask, rng.integers(0, 10, mask.shape))
    pred[0] = 255
    return confusion(pred, mask, 11)


def sheet(height: int, width: int, *, num_rows: int = 2) -> Image.Image:
    picture = np.zeros((height, width, 3), np.uint8)
    return panel(
        [[picture, picture + 50]] * num_rows,
        titles=["photo", "prediction"],
        names=SPACE.names,
        palette=SPACE.palette,
    )


def test_each_class_gets_its_colour_and_ignored_pixels_white():
    mask = np.array([[0, 1, 255], [1, 0, 2]], np.uint8)
    painted = colour_mask(mask, PALETTE)
    assert painted.dtype == np.uint8
    assert painted.tolist() == [[RED, GREEN, WHITE], [GREEN, RED, WHITE]]


def test_overlay_mixes_the_colour_in_and_leaves_ignored_pixels_alone():
    image = np.full((1, 2, 3), 100, np.uint8)
    mixed = overlay(image, np.array([[0, 255]], np.uint8), PALETTE, alpha=0.25)
    assert mixed.dtype == np.uint8
    assert mixed.tolist() == [[[125, 75, 75], [100, 100, 100]]]


@pytest.mark.parametrize("alpha", [0.0, 1.0])
def test_overlay_at_its_limits_is_the_photo_or_the_mask(alpha):
    image = np.random.default_rng(0).integers(0, 256, (4, 5, 3)).astype(np.uint8)
    mask = np.arange(20).reshape(4, 5) % 2
    wanted = colour_mask(mask, PALETTE) if alpha else image
    assert np.array_equal(overlay(image, mask, PALETTE, alpha=alpha), wanted)


@pytest.mark.parametrize(
    ("size", "cell"),
    [
        ((128, 256), (256, 512)),
        ((64, 321), (64, 321)),
        ((360, 480), (360, 480)),
        ((1024, 2048), (256, 512)),
        ((10, 10), (640, 640)),
        ((720, 961), (360, 480)),
    ],
)
def test_a_panel_shows_pictures_at_a_readable_size(size, cell):
    one, two = sheet(*size, num_rows=1), sheet(*size, num_rows=2)
    assert two.width == 8 + 2 * (cell[1] + 8)
    assert two.height - one.height == cell[0] + 8


@pytest.mark.parametrize("columns", [3, 5])
@pytest.mark.parametrize("width", [256, 480, 2048])
def test_a_panel_of_many_columns_fits_into_a_browser_window(columns, width):
    picture = np.zeros((width // 2, width, 3), np.uint8)
    made = panel([[picture] * columns], titles=["x"] * columns, names=["a", "b"], palette=PALETTE)
    assert 0.5 * 1400 < made.width < 1500


def test_a_panel_enlarges_without_inventing_colours():
    picture = np.zeros((320, 320, 3), np.uint8)
    picture[::2, ::2] = RED
    made = np.asarray(panel([[picture]], titles=[""], names=["a", "b"], palette=PALETTE))
    assert np.array_equal(made[34 : 34 + 640, 8 : 8 + 640], picture.repeat(2, 0).repeat(2, 1))


def test_a_picture_of_other_proportions_keeps_them_within_its_cell():
    black = np.zeros((640, 640, 3), np.uint8)
    made = panel([[black, black[:320]]], titles=["a", "b"], names=["a", "b"], palette=PALETTE)
    second = np.asarray(made)[34 : 34 + 640, 656 : 656 + 640]
    assert (second[160:480] == 0).all()
    assert (second[:160] == 255).all()
    assert (second[480:] == 255).all()


def test_the_legend_shows_the_colour_of_every_class():
    picture = np.full((40, 320, 3), 255, np.uint8)
    made = panel([[picture]], titles=["photo"], names=SPACE.names, palette=SPACE.palette)
    seen = {tuple(colour) for colour in np.asarray(made).reshape(-1, 3).tolist()}
    assert seen >= {tuple(colour) for colour in SPACE.palette.tolist()}


def test_a_panel_without_titles_and_legend_is_only_the_pictures_and_may_end_early():
    black = np.zeros((640, 640, 3), np.uint8)
    made = np.asarray(panel([[black, black], [black]]))
    wanted = np.full((1304, 1304, 3), 255, np.uint8)
    for top, left in ((8, 8), (8, 656), (656, 8)):
        wanted[top : top + 640, left : left + 640] = 0
    assert np.array_equal(made, wanted)


@pytest.mark.parametrize("lengths", [[], [2, 1], [3]])
def test_a_panel_without_a_title_for_each_picture_is_refused(lengths):
    rows = [[np.zeros((4, 4, 3), np.uint8)] * length for length in lengths]
    with pytest.raises(ValueError, match="needs rows of 2 pictures, one for each title, got"):
        panel(rows, titles=["a", "b"], names=["a", "b"], palette=PALETTE)


def test_a_panel_of_no_picture_is_refused():
    for rows in ([], [[]]):
        with pytest.raises(ValueError, match="a panel needs rows of some pictures"):
            panel(rows)


def test_a_saved_picture_comes_back_and_has_equal_bytes_twice(tmp_path):
    picture = colour_mask(np.arange(12).reshape(3, 4) % 3, PALETTE)
    save_png(tmp_path / "array.png", picture)
    save_png(tmp_path / "image.png", Image.fromarray(picture))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "array.png")), picture)
    assert (tmp_path / "array.png").read_bytes() == (tmp_path / "image.png").read_bytes()


def test_panels_and_charts_have_equal_bytes_twice_whatever_the_user_s_settings(tmp_path):
    values = np.linspace(0, 1, 11)
    values[4] = np.nan
    for name in ("a", "b"):
        save_png(tmp_path / name / "panel.png", sheet(16, 32))
        confusion_figure(counts(), SPACE.names, tmp_path / name / "confusion.png")
        iou_bars({"one": values, "two": values / 2}, SPACE.names, tmp_path / name / "iou.png")
        mpl.rcParams["font.size"] = 30.0
    mpl.rcdefaults()
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        with Image.open(path) as picture:
            assert not picture.info.keys() - {"dpi"}


@pytest.mark.parametrize("name", ["camvid", "cityscapes"])
def test_the_confusion_chart_grows_with_the_classes_and_colours_its_diagonal(name, tmp_path):
    names = LABEL_SPACES[name].names
    confusion_figure(np.eye(len(names), dtype=np.int64), names, tmp_path / "chart.png")
    chart = np.asarray(Image.open(tmp_path / "chart.png").convert("RGB")).astype(int)
    dark_blue = (np.abs(chart - [8, 48, 107]).sum(axis=2) < 6).sum()  # "Blues" at 100 %
    assert chart.shape[1] > 40 * len(names)
    assert dark_blue > len(names) * 30 * 30


def test_charts_of_nothing_annotated_are_drawn(tmp_path):
    confusion_figure(np.zeros((3, 3), np.int64), ["a", "b", "c"], tmp_path / "chart.png")
    iou_bars({"none": np.full(3, np.nan)}, ["a", "b", "c"], tmp_path / "bars.png")
    for name in ("chart.png", "bars.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.size
