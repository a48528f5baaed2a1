"""Report of a run: one file, escaped, complete where parts are missing; and the summary."""

import base64
import io
import json
import re
import shutil
from html import escape
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from pipeline.system.files import write_json
from tests.helpers.browser import browse, needs_browser
from tests.helpers.small_results import CLASSES, write_results
from tests.helpers.tiny_run import run_stage, write_params

# Reports how wide the page became, and how many of its images are shown.
PROBE = """<script>addEventListener("load", () => {
  const root = document.documentElement, pictures = [...document.images];
  parent.document.title = [innerWidth, root.scrollWidth, pictures.length,
    pictures.filter(one => one.complete && one.naturalWidth).length].join(" ");
})</script>"""


class Page(HTMLParser):
    """Tags of a page, their attributes, and the text of its headings and cells."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.words += [data.strip()] if data.strip() else []

    def all(self, name: str) -> list[dict[str, str | None]]:
        return [attributes for tag, attributes in self.tags if tag == name]


def report_of(folder: Path, **missing: bool) -> str:
    """The report of made-up results, in the current folder."""
    write_results(folder, **missing)
    write_params(folder, {"train.steps": 600, "carb.warmup_share": 0.75})
    return report_again(folder)


def report_again(folder: Path) -> str:
    result = run_stage("report")
    assert result.exit_code == 0, result.output
    return (folder / "results/report.html").read_text("utf-8")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with all results and their report."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        report_of(folder)
    return folder


@pytest.fixture
def text(whole: Path) -> str:
    return (whole / "results/report.html").read_text("utf-8")


def test_the_page_loads_nothing_and_runs_no_script(whole: Path, text: str) -> None:
    page = Page(text)
    assert not re.search(r"https?:|@import|url\(", text)
    assert not {"script", "link", "iframe", "object"} & {tag for tag, _ in page.tags}
    anchors = {f"#{one['id']}" for _, one in page.tags if "id" in one}
    assert {one["href"] for one in page.all("a")} <= anchors
    assert str(whole) not in text
    assert set(CLASSES) <= set(page.words)  # escaped


def test_every_image_is_embedded_with_a_description(text: str) -> None:
    images = Page(text).all("img")
    assert len(images) == 3 + 4 + 1  # images, panels; curves; previews
    for image in images:
        kind, content = str(image["src"]).removeprefix("data:").split(";base64,")
        written = base64.b64decode(content, validate=True)
        assert image["alt"]
        if kind == "image/svg+xml":
            assert written.startswith(b"<?xml")
        else:
            assert Image.open(io.BytesIO(written)).width <= 1400


def test_metrics_are_those_of_the_stages(text: str) -> None:
    words = Page(text).words
    place = words.index(CLASSES[0])
    # IoU of the segmenter and of the better pseudo-masks, difference, precision, recall, photos
    assert words[place + 1 : place + 7] == ["75.0", "37.5", "+37.5", "75.0", "75.0", "100.0"]
    assert words[words.index(CLASSES[1]) + 3] == "\N{MINUS SIGN}37.5"
    assert words[words.index(CLASSES[2]) + 1] == "-"
    assert "43.8 %" in words
    assert any("2.5 times as often" in one.replace("\n", " ") for one in words)
    assert "64 x 48 to 96 x 48" in words[words.index("val") + 2]
    assert words[words.index("warmup_share") + 1] == "0.75"
    assert "CARB: after 450 of 600 steps." in words


def test_same_results_give_the_same_bytes(here: Path, text: str) -> None:
    assert report_of(here) == text


def test_a_run_without_human_masks_has_panels_and_no_metrics(here: Path) -> None:
    words = Page(report_of(here, masks=False, val=False)).words
    assert "Results by class" not in words
    assert "Predictions of the segmenter" in words
    assert any("not scored" in one for one in words)


def test_page_shows_no_absolute_path(here: Path) -> None:
    write_results(here)
    named = {
        "dataset.root": here / "photos",
        "dataset.image_labels": here / "labels.csv",
        "clip.pretrained": here / "weights.safetensors",
        "segmenter.encoder_weights": here / "encoder.safetensors",
        "eval.photos": here / "list.txt",
    }
    named = {name: str(path) for name, path in named.items()}
    write_params(here, {**named, "clip.model": f"local-dir:{here}/clip"})
    assert run_stage("report", "--results", str(here / "results")).exit_code == 0
    text = (here / "results/report.html").read_text("utf-8")
    assert str(here) not in text
    words = Page(text).words
    assert words[words.index("image_labels") + 1] == ".../labels.csv"
    assert words[words.index("model") + 1] == "local-dir:.../clip"


def test_missing_results_are_left_out(here: Path, whole: Path) -> None:
    shutil.copytree(whole / "data", here / "data")
    shutil.copy(whole / "params.yaml", here)
    words = Page(report_again(here)).words
    assert {"The data", "Settings", "Citation"} <= set(words)
    assert not {"Training", "CLIP pseudo-masks", "Panels"} & set(words)


def test_missing_and_damaged_files_are_named_in_one_sentence(here: Path) -> None:
    write_params(here, {})
    result = run_stage("report")
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert "dvc repro prepare" in result.stderr
    write_results(here)
    image = here / "results/eval/panels.png"
    image.write_bytes(image.read_bytes()[:1000])
    result = run_stage("report")
    assert result.exit_code == 2
    assert "results/eval/panels.png: damaged PNG; run `dvc repro --force eval`" in result.stderr


def test_the_summary_names_metrics_and_outputs(
    whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(whole)
    lines = [" ".join(line.split()) for line in run_stage("report").stdout.splitlines()]
    assert "mIoU, segmenter, val 43.8 % (without image labels)" in lines
    assert "mIoU, pseudo-masks, val 37.5 % (local level, with image labels)" in lines
    assert "report, one file results/report.html" in lines
    assert "training: curves results/train/plots" in lines
    assert "\x1b" not in "".join(lines)


@pytest.mark.parametrize("chosen", ["models/segmenter", "models/segmenter/snapshots/000450"])
def test_lost_classes_and_the_evaluated_network_are_named(here: Path, chosen: str) -> None:
    report_of(here)
    message = "classes lost: rider; raise carb.min_weight (0)"
    lost = {"classes": ["rider"], "photos": 3, "message": message}
    write_json(here / "results/train/missing_classes.json", lost)
    metrics = json.loads((here / "results/eval/metrics.json").read_text("utf-8"))
    write_json(here / "results/eval/metrics.json", metrics | {"network": {"folder": chosen}})
    result = run_stage("report")
    page = (here / "results/report.html").read_text("utf-8")
    assert f"{message}." in page
    assert f'smp.from_pretrained("{chosen}")' in page
    assert re.search(r"missing classes +rider", result.output)
    assert ("carb predict DIR --model" in result.output) is chosen.endswith("450")


@needs_browser
def test_all_images_are_shown_and_nothing_is_wider_than_a_phone(text: str, tmp_path: Path) -> None:
    page, phone = tmp_path / "probed.html", "width: 400px; height: 800px; border: 0"
    probed = re.sub("<meta http-equiv=.Content-Security-Policy.*>", PROBE, text)
    page.write_text(f'<title></title><iframe style="{phone}" srcdoc="{escape(probed)}"></iframe>')
    found = re.search("<title>(.*)</title>", browse(page, 1280, "--dump-dom"))
    assert found is not None
    inner, scrolled, pictures, shown = map(int, found[1].split())
    assert scrolled <= inner == 400
    assert pictures == shown == 8
