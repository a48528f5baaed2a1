"""Charts: equal bytes, sizes by the number of classes, classes without pixels."""

import matplotlib as mpl
import numpy as np
from PIL import Image

from pipeline.metrics import confusion
from pipeline.report.charts import confusion_chart, curve_chart, iou_bars
from pipeline.scenes.classes import LABEL_SPACES

NAMES = LABEL_SPACES["camvid"].names


def counts() -> np.ndarray:
    rng = np.random.default_rng(0)
    mask = rng.integers(0, 9, (30, 40))  # two classes in no mask
    pred = np.where(rng.random(mask.shape) < 0.6, mask, rng.integers(0, 10, mask.shape))
    return confusion(pred, mask, 11)


def test_equal_input_gives_equal_charts_whatever_the_user_s_settings(tmp_path):
    values = np.linspace(0, 1, 11)
    values[4] = np.nan
    drawings = []
    for name in ("a", "b"):
        confusion_chart(counts(), NAMES, tmp_path / name / "confusion.png")
        iou_bars({"one": values, "two": values / 2}, NAMES, tmp_path / name / "iou.png")
        curve = np.array([[1, 0.5], [10, 0.25]])
        drawings.append(curve_chart({"a": curve, "b": curve}, size=(4, 3), marks=[(5, "now")]))
        mpl.rcParams["font.size"] = 30.0
    mpl.rcdefaults()
    assert drawings[0] == drawings[1]
    assert b"now</text>" in drawings[0]  # text stays text
    for path in sorted((tmp_path / "a").iterdir()):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()
        with Image.open(path) as opened:
            assert not opened.info.keys() - {"dpi"}


def test_the_confusion_chart_grows_with_the_classes_and_colours_its_diagonal(tmp_path):
    names = LABEL_SPACES["cityscapes"].names
    confusion_chart(np.eye(len(names), dtype=np.int64), names, tmp_path / "chart.png")
    chart = np.asarray(Image.open(tmp_path / "chart.png").convert("RGB")).astype(int)
    dark_blue = (np.abs(chart - [8, 48, 107]).sum(axis=2) < 6).sum()  # "Blues" at 100 %
    assert chart.shape[1] > 40 * len(names)
    assert dark_blue > len(names) * 30 * 30


def test_charts_without_annotated_pixels_are_drawn(tmp_path):
    confusion_chart(np.zeros((3, 3), np.int64), ["a", "b", "c"], tmp_path / "chart.png")
    iou_bars({"none": np.full(3, np.nan)}, ["a", "b", "c"], tmp_path / "bars.png")
    for name in ("chart.png", "bars.png"):
        with Image.open(tmp_path / name) as opened:
            assert opened.size
