"""The page on which proposed labels are corrected, in a real browser: nothing clicked is lost."""

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.image_label_files import read_label_file
from pipeline.proposals.page import Proposal, correction_page
from pipeline.scenes.classes import ClassInfo, LabelSpace
from tests.helpers.browser import Tab, needs_browser, opened_tab

pytestmark = needs_browser
NAMES = ["stra\u00dfe", 'a,"b|c', "$x$ <b>"]
SPACE = LabelSpace("folder", tuple(ClassInfo(name, (9, 9, 9), (name,)) for name in NAMES))
CONFIDENCE = {"x/a,1.jpg": 0.9, "b.JPG": 0.6, "c;\u00fc.png": 0.4, "d.webp": 0.1}
PHOTOS = list(CONFIDENCE)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the page and of its downloads."""
    return tmp_path_factory.mktemp("page")


@pytest.fixture(scope="module")
def browser(folder: Path) -> Iterator[Tab]:
    with opened_tab(folder) as tab:
        yield tab


@pytest.fixture
def tab(browser: Tab, folder: Path) -> Tab:
    """The page as a browser shows it for the first time."""
    browser.open(write_page(folder / "correct.html"))
    browser.run("localStorage.clear()")
    browser.reload(until=lambda: browser.run("localStorage.length") == 0)
    return browser


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
    """Load a file; returns the message of the page."""
    path = folder / "mine.csv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    tab.run("document.getElementById('note').textContent = ''")
    tab.choose_file("#load", path)
    tab.until("document.getElementById('note').textContent")
    return note(tab)


def download(tab: Tab, folder: Path) -> dict[str, list[str]]:
    """Click "Download"; returns the classes per photo, as `prepare` reads the file."""
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


def test_a_slider_does_not_change_clicked_photos(tab: Tab) -> None:
    a, b, c, d = PHOTOS
    assert tagged(tab) == [a, b]
    tab.click(photo(d))
    tab.click(photo(a))
    for _ in range(2):
        tab.click(photo(b))  # changed and changed back: confirmed
    tab.click(slider(), 0.995)
    assert tagged(tab) == [b, d]
    tab.click(slider(), 0.005)
    assert tagged(tab) == [b, c, d]
    assert tagged(tab, 2) == PHOTOS
    assert "4 photos, 3 tags corrected; stored in this browser, not downloaded yet" in total(tab)


def test_photos_are_ranked_by_doubt_or_confidence(tab: Tab) -> None:
    a, b, c, d = PHOTOS

    def ranked() -> list[str]:
        titles = (
            "[...document.querySelector('section').querySelectorAll('.photo')].map(p => p.title)"
        )
        return [title.rpartition(": ")[0] for title in tab.run(titles)]

    assert ranked() == [b, c, a, d]
    tab.click(slider(), 0.005)
    assert ranked() == [d, c, b, a]
    tab.run("at('order').value = 'confidence'; at('order').onchange(); 0")
    assert ranked() == [a, b, c, d]


def test_corrections_survive_a_reload_and_the_end_of_the_browser(tmp_path: Path) -> None:
    a, b, c, d = PHOTOS
    page = write_page(tmp_path / "correct.html")
    with opened_tab(tmp_path) as tab:
        tab.open(page)
        tab.click(slider(), 0.7)
        tab.click(photo(d))
        tab.reload(until=lambda: tagged(tab) == [a, d])
        assert note(tab) == "Restored from this browser: 1 tags set by hand, sliders restored."
    with opened_tab(tmp_path) as tab:
        tab.open(page)
        tab.reload(until=lambda: tagged(tab) == [a, d])
        assert "not downloaded yet" in total(tab)
        tab.open(write_page(tmp_path / "other.html", threshold=0.2))
        assert tagged(tab) == [a, b, c]  # corrections belong to one page
        tab.open(page)
        tab.reload(until=lambda: tagged(tab) == [a, d])
        tab.click("document.getElementById('over')")
        assert tagged(tab) == [a, b]
        tab.click("document.getElementById('undo')")
        assert tagged(tab) == [a, d]


def test_downloaded_labels_are_those_shown_and_can_be_loaded_again(tab: Tab, folder: Path) -> None:
    a, b, c, d = PHOTOS
    tab.click(photo(d))
    tab.click(photo(b))
    tab.click(photo(d, 1))
    tab.click(slider(2), 0.995)
    saved = download(tab, folder)
    assert saved == {a: [NAMES[0]], b: [], c: [], d: NAMES[:2]}
    assert "not downloaded" not in total(tab)
    tab.click("document.getElementById('over')")
    said = load(tab, folder, (folder / "labels.csv").read_bytes())
    assert said.startswith("mine.csv: tags of 4 of 4 photos loaded; those that differ from the")
    assert tagged(tab) == [a, d]
    tab.click(slider(), 0.3)
    assert tagged(tab) == [a, c, d]
    tab.click(photo(c))
    assert download(tab, folder) == saved


@pytest.mark.parametrize(
    "content",
    [
        'photo;stra\u00dfe;"a,""b|c";$X$ <b>\r\nx/a,1.jpg;0;1;x\r\nd;TRUE;;\r\n',
        '\ufeffkey\t$x$ <b>\t"a,""b|c"\tSTRA\u00dfE \n"train/x/a,1"\tyes\t1\t0\n\nd.webp\t0\t0\t1',
    ],
)
def test_labels_are_read_as_prepare_reads_them(tab: Tab, folder: Path, content: str) -> None:
    a, _, _, d = PHOTOS
    load(tab, folder, content)
    (folder / "mine.csv").write_text(content, "utf-8")
    rows = list(read_label_file(folder / "mine.csv", NAMES).values())
    for place in range(3):
        shown = tagged(tab, place)
        assert [name in shown for name in (a, d)] == [bool(row[place]) for row in rows]


def test_tags_are_read_and_unknown_names_are_listed(tab: Tab, folder: Path) -> None:
    a, b, _, _ = PHOTOS
    said = load(tab, folder, "photo,tags\nb.JPG,$x$ <b>|boat\nnobody.jpg,boat\n")
    assert tagged(tab) == [a]
    assert b in tagged(tab, 2)
    assert "no such photo here: 'nobody.jpg'; " in said
    assert "no such class here: 'boat'; " in said
    assert "missing in the file, unchanged: 'x/a,1.jpg', 'c;\u00fc.png', 'd.webp'." in said
    said = load(tab, folder, "photo,boat,stra\u00dfe\nb,1,1\n")
    assert tagged(tab) == [a, b]
    assert "classes missing in the file, unchanged: 'a,\"b|c', '$x$ <b>'" in said


def test_a_wrong_file_is_refused_in_one_line(tab: Tab, folder: Path) -> None:
    tab.click(photo(PHOTOS[3]))
    for content, message in [
        ("stra\u00dfe,1\n", "the header must be 'photo' and a column for each class"),
        ("photo,stra\u00dfe\nb,2\n", "line 2 has '2'; write 1"),
        ("photo,stra\u00dfe\nb,1\n\nb.JPG,1\n", "line 4 repeats 'b.JPG'"),
        ("photo,stra\u00dfe,STRA\u00dfE\nb,1,1\n", "two columns of 'stra\u00dfe'"),
        ("photo,stra\u00dfe\nz,1\n", "it names none of these photos but 'z'"),
        (b"photo,stra\xdfe\nb,1\n", "it is not UTF-8 text"),
    ]:
        said = load(tab, folder, content)
        assert said.startswith("mine.csv: not loaded: ")
        assert message in said
    assert tagged(tab) == [PHOTOS[0], PHOTOS[1], PHOTOS[3]]


def test_a_browser_without_storage_is_reported(tab: Tab) -> None:
    refuse = "Storage.prototype.setItem = Storage.prototype.getItem = () => { throw Error('no'); }"
    script = tab.ask("Page.addScriptToEvaluateOnNewDocument", source=refuse)
    tab.reload(until=lambda: tab.run("refused") is True)
    tab.click(photo(PHOTOS[3]))
    assert tagged(tab) == [PHOTOS[0], PHOTOS[1], PHOTOS[3]]
    assert "this browser does not store your work: download it" in total(tab)
    tab.ask("Page.removeScriptToEvaluateOnNewDocument", **script)
