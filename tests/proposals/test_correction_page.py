"""The page on which proposed labels are corrected, in a real browser: nothing clicked is lost."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.label_files import read_label_file
from pipeline.proposals.page import Proposal, correction_page
from pipeline.scenes.classes import ClassInfo, LabelSpace
from tests.helpers.browser import Tab, needs_browser, opened_tab

pytestmark = needs_browser
NAMES = ["stra\u00dfe", 'a,"b|c', "$x$ <b>"]
SPACE = LabelSpace("folder", tuple(ClassInfo(name, (9, 9, 9), (name,)) for name in NAMES))
CONFIDENCE = {"x/a,1.jpg": 0.9, "b.JPG": 0.6, "c;\u00fc.png": 0.4, "d.webp": 0.1}
PHOTOS = list(CONFIDENCE)


@pytest.fixture
def page(tmp_path: Path) -> Path:
    return write_page(tmp_path / "correct.html")


@pytest.fixture
def tab(tmp_path: Path, page: Path) -> Iterator[Tab]:
    with opened_tab(tmp_path) as tab:
        tab.open(page)
        yield tab


def write_page(path: Path, *, threshold: float = 0.5) -> Path:
    grey = Image.new("RGB", (60, 40), "grey")
    found = [
        Proposal(photo, grey, np.array([value, value / 2, 0.7]))
        for photo, value in CONFIDENCE.items()
    ]
    path.write_text(correction_page(found, SPACE, threshold=threshold), "utf-8")
    return path


def photo(name: str, place: int = 0) -> str:
    """The button of a photo in the section of a class."""
    inside = f"document.querySelectorAll('section')[{place}].querySelectorAll('.photo')"
    return f"[...{inside}].find(each => each.title.startsWith({name!r}))"


def slider(place: int = 0) -> str:
    return f"document.querySelectorAll('input[type=range]')[{place}]"


def tagged(tab: Tab, place: int = 0) -> list[str]:
    """Photos that are tagged with a class on the page."""
    return [name for name in PHOTOS if tab.run(f"{photo(name, place)}.ariaPressed") == "true"]


def note(tab: Tab) -> str:
    return str(tab.run("document.getElementById('note').textContent"))


def total(tab: Tab) -> str:
    return str(tab.run("document.getElementById('total').textContent"))


def load(tab: Tab, folder: Path, content: str | bytes) -> str:
    """Load a file; what the page says."""
    path = folder / "mine.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    tab.run("document.getElementById('note').textContent = ''")
    tab.choose_file("#load", path)
    tab.until("document.getElementById('note').textContent")
    return note(tab)


def download(tab: Tab, folder: Path) -> dict[str, list[str]]:
    """Press the button; the tags in the file, as `prepare` reads them."""
    path, end = folder / "labels.csv", time.monotonic() + 60
    path.unlink(missing_ok=True)
    tab.click("document.getElementById('save')")
    while not path.exists() or not path.stat().st_size:
        assert time.monotonic() < end, "no download"
        time.sleep(0.05)
    rows = read_label_file(path, NAMES)
    return {
        key: [name for name, tag in zip(NAMES, row, strict=True) if tag]
        for key, row in rows.items()
    }


def test_a_slider_leaves_what_was_clicked(tab: Tab) -> None:
    a, b, c, d = PHOTOS
    assert tagged(tab) == [a, b]
    tab.click(photo(d))
    tab.click(photo(a))
    for _ in range(2):
        tab.click(photo(b))  # away and back: a person has looked at it
    tab.click(slider(), 0.995)
    assert tagged(tab) == [b, d]
    tab.click(slider(), 0.005)
    assert tagged(tab) == [b, c, d]
    assert tagged(tab, 2) == PHOTOS
    assert "4 photos, 3 tags corrected; stored in this browser, not downloaded yet" in total(tab)


def test_what_is_downloaded_is_what_is_shown_and_what_prepare_reads(
    tab: Tab, tmp_path: Path
) -> None:
    a, b, c, d = PHOTOS
    tab.click(photo(c))
    tab.click(photo(d, 1))
    tab.click(slider(2), 0.995)
    found = download(tab, tmp_path)
    assert found == {a: [NAMES[0]], b: [NAMES[0]], c: [NAMES[0]], d: [NAMES[1]]}
    assert "not downloaded" not in total(tab)


def test_work_survives_a_reload_and_the_browser_s_end(tmp_path: Path, page: Path) -> None:
    a, b, c, d = PHOTOS
    with opened_tab(tmp_path) as tab:
        tab.open(page)
        tab.click(slider(), 0.7)
        tab.click(photo(d))
        assert tagged(tab) == [a, d]
        tab.reload()
        assert tagged(tab) == [a, d]
        assert note(tab) == "Restored from this browser: 1 tags set by hand, sliders restored."
    with opened_tab(tmp_path) as tab:
        tab.open(page)
        assert tagged(tab) == [a, d]
        assert "not downloaded yet" in total(tab)
        tab.open(write_page(tmp_path / "other.html", threshold=0.2))
        assert tagged(tab) == [a, b, c]  # what was done on one page is not put upon another
        tab.open(page)
        tab.click("document.getElementById('over')")
        assert tagged(tab) == [a, b]
        tab.click("document.getElementById('undo')")
        assert tagged(tab) == [a, d]
        tab.click("document.getElementById('undo')")
        tab.reload()
        assert tagged(tab) == [a, b]


def test_saved_labels_are_loaded_and_corrected_further(tab: Tab, tmp_path: Path) -> None:
    a, b, c, d = PHOTOS
    tab.click(photo(d))
    tab.click(photo(b))
    tab.click(photo(d, 1))
    saved = download(tab, tmp_path)
    tab.click("document.getElementById('over')")
    said = load(tab, tmp_path, (tmp_path / "labels.csv").read_bytes())
    assert said.startswith("mine.csv: tags of 4 of 4 photos loaded; those that differ from the")
    assert tagged(tab) == [a, d]
    tab.click(slider(), 0.3)
    assert tagged(tab) == [a, c, d]
    tab.click(photo(c))
    assert download(tab, tmp_path) == saved
    tab.reload()
    assert tagged(tab) == [a, d]


@pytest.mark.parametrize(
    "content",
    [
        'photo;stra\u00dfe;"a,""b|c";$X$ <b>\r\nx/a,1.jpg;0;1;x\r\nd;TRUE;;\r\n',
        '\ufeffkey\t$x$ <b>\t"a,""b|c"\tSTRA\u00dfE \n"train/x/a,1"\tyes\t1\t0\n\nd.webp\t0\t0\t1',
    ],
)
def test_labels_are_read_as_prepare_reads_them(tab: Tab, tmp_path: Path, content: str) -> None:
    a, _, _, d = PHOTOS
    load(tab, tmp_path, content)
    (tmp_path / "mine.csv").write_text(content, "utf-8")
    rows = list(read_label_file(tmp_path / "mine.csv", NAMES).values())
    for place in range(3):
        shown = tagged(tab, place)
        assert [name in shown for name in (a, d)] == [bool(row[place]) for row in rows]


def test_tags_are_read_and_unknown_names_are_listed(tab: Tab, tmp_path: Path) -> None:
    a, b, _, _ = PHOTOS
    said = load(tab, tmp_path, "photo,tags\nb.JPG,$x$ <b>|boat\nnobody.jpg,boat\n")
    assert tagged(tab) == [a]
    assert b in tagged(tab, 2)
    assert "no such photo here: 'nobody.jpg'; " in said
    assert "no such class here: 'boat'; " in said
    assert "missing in the file, unchanged: 'x/a,1.jpg', 'c;\u00fc.png', 'd.webp'." in said
    said = load(tab, tmp_path, "photo,boat,stra\u00dfe\nb,1,1\n")
    assert tagged(tab) == [a, b]
    assert "classes missing in the file, unchanged: 'a,\"b|c', '$x$ <b>'" in said


def test_a_wrong_file_is_refused_in_one_line(tab: Tab, tmp_path: Path) -> None:
    tab.click(photo(PHOTOS[3]))
    for content, message in [
        ("stra\u00dfe,1\n", "the header must be 'photo' and a column for each class"),
        ("photo,stra\u00dfe\nb,2\n", "line 2 has '2'; write 1"),
        ("photo,stra\u00dfe\nb,1\n\nb.JPG,1\n", "line 4 repeats 'b.JPG'"),
        ("photo,stra\u00dfe,STRA\u00dfE\nb,1,1\n", "two columns of 'stra\u00dfe'"),
        ("photo,stra\u00dfe\nz,1\n", "it names none of these photos but 'z'"),
        (b"photo,stra\xdfe\nb,1\n", "it is not UTF-8 text"),
    ]:
        said = load(tab, tmp_path, content)
        assert said.startswith("mine.csv: not loaded: ")
        assert message in said
        assert tagged(tab) == [PHOTOS[0], PHOTOS[1], PHOTOS[3]]


def test_a_browser_that_keeps_nothing_says_so(tab: Tab, page: Path) -> None:
    refuse = "Storage.prototype.setItem = Storage.prototype.getItem = () => { throw Error('no'); }"
    tab.ask("Page.addScriptToEvaluateOnNewDocument", source=refuse)
    tab.open(page)
    tab.reload()
    tab.click(photo(PHOTOS[3]))
    assert tagged(tab) == [PHOTOS[0], PHOTOS[1], PHOTOS[3]]
    assert "this browser does not store your work: download it" in total(tab)
