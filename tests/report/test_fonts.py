"""Fonts: missing letters, another font, unusual and long names."""

from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from PIL import Image

from pipeline.report.charts import confusion_chart, iou_bars
from pipeline.report.fonts import (
    font_file,
    letters,
    one_line,
    shorten_middle,
    text_font,
    use_font,
)
from pipeline.report.panels import PanelRow, class_entries, class_legend, contact_sheet, panel

GERMAN, GREEK = "stra\u00dfe", "\u03b4\u03c1\u03cc"
RUSSIAN = "\u0434\u043e\u0440\u043e\u0433\u0430"
VIETNAMESE, ARABIC, CHINESE = "\u0111\u01b0\u1eddng", "\u0637\u0631\u064a\u0642", "\u9053\u8def"
READABLE = ["road", GERMAN, RUSSIAN, GREEK, VIETNAMESE, ARABIC]
ODD = ["$x$ and $", r"\frac{a", "a\nb", "_hidden", "%", "a_b^c", "\udcff"]
PALETTE = np.arange(60, dtype=np.uint8).reshape(20, 3) * 4
OTHER = Path(mpl.get_data_path()) / "fonts/ttf/STIXGeneral.ttf"


@pytest.fixture(autouse=True)
def default_again(caplog):
    caplog.set_level("INFO", "carb")
    yield
    use_font(None, [])


def test_all_names_are_readable_that_dejavu_sans_has(caplog):
    use_font(None, READABLE)
    assert not caplog.messages
    box = bytes(text_font(16).getmask("\uffff"))
    for letter in "".join(READABLE):
        assert bytes(text_font(16).getmask(letter)) != box


def test_missing_letters_are_named_in_one_line_with_the_parameter(caplog):
    use_font(None, ["road", CHINESE, f"{CHINESE}2", "a\u200db\ufe0f\n"])
    assert caplog.messages == [
        "params.yaml: pictures.font: 2 letters of names of classes or photos are missing in DejaVu "
        "Sans and drawn as boxes: \u8def \u9053; name the file of a font that has them"
    ]
    use_font(None, [chr(0x4E00 + place) for place in range(30)], setting="--font")
    assert caplog.messages[1].startswith("--font: 30 letters")
    assert ", ...;" in caplog.messages[1]


def test_a_file_that_is_not_a_font_is_refused_in_one_sentence(tmp_path):
    (tmp_path / "a folder.ttf").mkdir()
    (tmp_path / "text.ttf").write_text("no font")
    for name in ("none.ttf", "a folder.ttf", "text.ttf"):
        problem = rf"^params\.yaml: pictures\.font: .*{name}: .*; name a"
        with pytest.raises(ValueError, match=problem):
            use_font(str(tmp_path / name), [])
    assert font_file().name == "DejaVuSans.ttf"


def drawn(folder: Path, names: list[str]) -> list[bytes]:
    """All kinds of pictures that show names."""
    folder.mkdir(exist_ok=True)
    counts = np.eye(len(names), dtype=np.int64) * 5
    confusion_chart(counts, names, folder / "confusion.png")
    iou_bars({"a": np.full(len(names), 0.5)}, names, folder / "iou.png")
    photo = np.zeros((20, 40, 3), np.uint8)
    legend = [class_entries(names, PALETTE[: len(names)])]
    panel([PanelRow([photo], names[0])], titles=[names[-1]], legend=legend).save(
        folder / "panel.png"
    )
    contact_sheet([(name, photo) for name in names]).save(folder / "sheet.png")
    class_legend(names, PALETTE[: len(names)]).save(folder / "legend.png")
    return [path.read_bytes() for path in sorted(folder.iterdir())]


def test_another_font_is_used_in_all_pictures(tmp_path):
    usual = drawn(tmp_path / "usual", READABLE[:3])
    use_font(str(OTHER), [])
    other = drawn(tmp_path / "other", READABLE[:3])
    assert all(one != two for one, two in zip(usual, other, strict=True))


@pytest.mark.filterwarnings("error")
def test_any_name_can_be_drawn(tmp_path):
    drawn(tmp_path, [*ODD, CHINESE, ARABIC])


def pixels_of(path: Path) -> np.ndarray:
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L"))


def test_long_names_stay_inside(tmp_path):
    long = ["a" * 200 + " first", "\u9053" * 300, "road"]
    drawn(tmp_path, long)
    for name in ("legend", "panel"):
        assert pixels_of(tmp_path / f"{name}.png").shape[1] <= 700
    pixels = pixels_of(tmp_path / "iou.png")
    assert (pixels[:, :3] == 255).all()  # nothing is cut off at the edges
    assert pixels[:, pixels.shape[1] // 2 :].min() < 255
    pixels = pixels_of(tmp_path / "confusion.png")
    for edge in (pixels[:2], pixels[-2:], pixels[:, :2], pixels[:, -2:]):
        assert (edge == 255).all()
    short = shorten_middle("the first of all names there are", text_font(16), 120)
    assert short.startswith("the f")
    assert short.endswith("are")


def test_a_text_is_one_line_with_boxes_for_missing_letters():
    assert one_line("a\r\n\tb\udcff") == "a   b "
    assert one_line(f"a{CHINESE}\U000e0001 b") == "a\u25a1\u25a1 b"
    use_font(str(OTHER), [])
    assert one_line("a\u4e00") == "a?" if "\u25a1" not in letters(OTHER) else "a\u25a1"
