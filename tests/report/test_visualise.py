"""Pictures: colours where they belong, sizes, titles, equal bytes."""

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from pipeline.metrics import confusion
from pipeline.report.charts import confusion_chart, iou_bars
from pipeline.report.drawing import (
    IGNORE_COLOUR,
    MARK_OUTLINE,
    changes,
    colour_mask,
    heat,
    mark_region,
    overlay,
    save_png,
)
from pipeline.scenes.classes import LABEL_SPACES

SPACE = LABEL_SPACES["camvid"]
PALETTE = np.array([[200, 0, 0], [0, 100, 0]], np.uint8)
RED, GREEN, WHITE = [200, 0, 0], [0, 100, 0], list(IGNORE_COLOUR)


def counts() -> np.ndarray:
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 9, (30, 40))  # two classes in no mask
    pred = np.where(rng.random(mask.shape) < 0.6, mask, rng.integers(0, 10, mask.shape))
    pred[0] = 255
    return confusion(pred, mask, 11)


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


def test_what_another_mask_changes_stands_on_the_faded_photo():
    image = np.array([[[0, 0, 0], [90, 0, 0], [255, 255, 255]]], np.uint8)
    before, after = np.array([[0, 1, 1]]), np.array([[1, 1, 255]])
    drawn = changes(image, before, after, PALETTE)
    assert drawn.dtype == np.uint8
    assert drawn.tolist() == [[GREEN, [176, 176, 176], WHITE]]  # 165 + 0.35 * 30


def test_a_marked_region_has_an_outline_and_stripes_and_leaves_the_rest_alone():
    image = np.full((20, 20, 3), 100, np.uint8)
    region = np.zeros((20, 20), bool)
    region[4:18, 4:18] = True
    drawn = mark_region(image, region)
    assert drawn.dtype == np.uint8
    assert (drawn[~region] == 100).all()
    outline = region.copy()
    outline[5:17, 5:17] = False
    assert (drawn[outline] == MARK_OUTLINE).all()
    inside = {tuple(colour) for colour in drawn[5:17, 5:17].reshape(-1, 3).tolist()}
    assert len(inside) == 2
    grey = [sum(colour) for colour in [*inside, MARK_OUTLINE]]
    assert min(np.diff(sorted(grey))) > 40  # told apart by lightness alone


def test_a_region_to_the_border_has_no_outline_there():
    everything = np.ones((6, 6), bool)
    drawn = mark_region(np.zeros((6, 6, 3), np.uint8), everything)
    assert not (drawn == MARK_OUTLINE).all(axis=2).any()


def test_heat_grows_lighter_from_nothing_to_its_top_and_no_further():
    drawn = heat(np.array([[0.0, 0.1, 0.2, 0.9, np.inf]]), 0.2).astype(int)
    sums = drawn.sum(axis=2)[0].tolist()
    assert sums[0] < sums[1] < sums[2]
    assert sums[2] == sums[3] == sums[4]


def test_a_saved_picture_comes_back_and_has_equal_bytes_twice(tmp_path):
    picture = colour_mask(np.arange(12).reshape(3, 4) % 3, PALETTE)
    save_png(tmp_path / "array.png", picture)
    save_png(tmp_path / "image.png", Image.fromarray(picture))
    assert np.array_equal(np.asarray(Image.open(tmp_path / "array.png")), picture)
    assert (tmp_path / "array.png").read_bytes() == (tmp_path / "image.png").read_bytes()


def test_charts_have_equal_bytes_twice_whatever_the_user_s_settings(tmp_path):
    values = np.linspace(0, 1, 11)
    values[4] = np.nan
    for name in ("a", "b"):
        confusion_chart(counts(), SPACE.names, tmp_path / name / "confusion.png")
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
    confusion_chart(np.eye(len(names), dtype=np.int64), names, tmp_path / "chart.png")
    chart = np.asarray(Image.open(tmp_path / "chart.png").convert("RGB")).astype(int)
    dark_blue = (np.abs(chart - [8, 48, 107]).sum(axis=2) < 6).sum()  # "Blues" at 100 %
    assert chart.shape[1] > 40 * len(names)
    assert dark_blue > len(names) * 30 * 30


def test_charts_of_nothing_annotated_are_drawn(tmp_path):
    confusion_chart(np.zeros((3, 3), np.int64), ["a", "b", "c"], tmp_path / "chart.png")
    iou_bars({"none": np.full(3, np.nan)}, ["a", "b", "c"], tmp_path / "bars.png")
    for name in ("chart.png", "bars.png"):
        with Image.open(tmp_path / name) as picture:
            assert picture.size
