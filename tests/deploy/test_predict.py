"""The command `predict`: photos, folders and videos."""

import json
import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from pipeline.deploy.video import probe_video, read_frames
from pipeline.report.drawing import palette_of
from pipeline.scenes.classes import LABEL_SPACES
from pipeline.segmenter.saved import load_segmenter
from stages import eval as evaluate
from tests.deploy.conftest import Run
from tests.helpers import ROOT
from tests.helpers.small_photos import SPACE, film, random_segmenter, scene

OUTPUTS = ("legend", "plain")
WITH_PROJECT = os.environ | {"PYTHONPATH": str(ROOT)}


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def opened(path: str) -> Image.Image:
    with Image.open(path) as picture:
        picture.load()
        return picture


@pytest.mark.parametrize("palette", ["dataset", "colour_blind"])
def test_a_photo_gives_mask_overlay_confidence_and_legend(
    palette: str, segmenter: Path, run: Run
) -> None:
    photo = scene(101, 67)
    photo.save("street.png")
    run("street.png", "--out", "o", "--palette", palette)
    mask = opened("o/masks/street.png")
    assert np.array_equal(np.asarray(mask), load_segmenter(segmenter)(photo))
    assert mask.getpalette()[:33] == palette_of(palette, SPACE.palette).ravel().tolist()
    confidence = opened("o/confidence/street.png")
    assert (confidence.mode, confidence.size) == ("L", (101, 67))
    assert np.asarray(confidence).min() >= 255 // 11  # the likeliest of 11 classes
    assert opened("o/overlays/street.png").size == (101, 67)
    assert Path("o/legend.png").is_file()


def test_a_photo_is_predicted_without_slow_imports(segmenter: Path) -> None:
    scene(96, 64).save("street.png")
    line = ["-m", "stages", "predict", "street.png", "--model", str(segmenter)]
    process = [sys.executable, "-X", "importtime", *line]
    done = subprocess.run(process, env=WITH_PROJECT, capture_output=True, text=True, check=True)
    imported = set(re.findall(r"^import time:.*\| +(\w+)$", done.stderr, re.MULTILINE))
    assert {"torch", "segmentation_models_pytorch"} <= imported
    slow = {"onnx", "dvc", "zarr", "matplotlib", "open_clip", "scipy", "av", "pandas"}
    assert not slow & imported


def test_a_folder_gives_what_eval_gives_for_it(run: Run) -> None:
    Path("photos/town").mkdir(parents=True)
    scene(96, 64).save("photos/a.png")
    scene(80, 48, 1).save("photos/town/b.jpg")
    run("photos", "--out", "p", "--scale", "0.5", "--flip")
    run("--images", "photos", "--out", "e", "--scale", "0.5", "--flip", app=evaluate.app)
    for name in ("masks/a.png", "masks/town/b.png", "overlays/a.png", "overlays/town/b.png"):
        assert Path("p", name).read_bytes() == Path("e", name).read_bytes()


@pytest.mark.parametrize("ending", [".mp4", ".avi"])
def test_a_video_keeps_its_size_rate_and_length(ending: str, run: Run) -> None:
    rate = Fraction(30000, 1001)
    ride = film(Path(f"ride{ending}"), size=(65, 97), rate=rate)
    run(ride, "--out", "o", "--frames", "--no-legend")
    made = probe_video(Path("o/overlays/ride.mp4"))
    assert (made.size, made.sound) == ((65, 97), False)
    assert abs(made.rate / rate - 1) < 0.01
    assert len(list(read_frames(made))) == 5
    masks = sorted(path.name for path in Path("o/masks/ride").iterdir())
    assert masks == [f"{number:06d}.png" for number in range(5)]


@pytest.mark.parametrize(("width", "side"), [(97, 129), (1283, 129)])
def test_the_classes_are_below_the_frames_of_a_video(width: int, side: int, run: Run) -> None:
    ride = film(Path("ride.mp4"), size=(side, width), rate=Fraction(5), frames=2)
    run(ride, "--out", "legend")
    run(ride, "--out", "plain", "--no-legend")
    frames = [next(read_frames(probe_video(Path(o, "overlays/ride.mp4")))) for o in OUTPUTS]
    with_legend, plain = (np.asarray(frame.image).astype(int) for frame in frames)
    assert with_legend.shape[1] == plain.shape[1]
    assert abs(with_legend[:side] - plain).mean() < 3  # of the video's compression
    strip = with_legend[side:].reshape(-1, 3)
    assert len(strip) >= 20 * width / 9
    for colour in SPACE.palette.astype(int):
        assert abs(strip - colour).max(axis=1).min() < 40


@pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")  # pycocotools 2.0
@pytest.mark.parametrize("form", ["ids", "coco-rle"])
def test_the_formats_contain_the_classes_of_the_palette_pngs(form: str, run: Run) -> None:
    Path("photos/town").mkdir(parents=True)
    scene(101, 67).save("photos/town/street.jpg")
    run("photos", "--out", "o")
    run("photos", "--out", "other", "--format", form)
    classes = np.asarray(opened("o/masks/town/street.png"))
    if form == "ids":
        mask = opened("other/masks/town/street.png")
        assert mask.mode == "L"
        assert np.array_equal(np.asarray(mask), classes)
        return
    coco = COCO("other/masks/town/street.json")
    assert [each["name"] for each in coco.loadCats(coco.getCatIds())] == SPACE.names
    assert coco.imgs[1]["file_name"] == "town/street.jpg"
    found = np.full_like(classes, 255)
    for region in coco.anns.values():
        found[coco.annToMask(region) == 1] = region["category_id"]
        assert region["area"] == (classes == region["category_id"]).sum()
    assert np.array_equal(found, classes)


def test_coco_without_pycocotools_ends_in_one_sentence(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene(96, 64).save("a.png")
    monkeypatch.setitem(sys.modules, "pycocotools", None)
    said = run("a.png", "--out", "o", "--format", "coco-rle", code=2)
    hint = "--format coco-rle needs pycocotools: pip install -e '.[deploy]'"
    assert said.strip() == f"error: {hint}"


def test_an_ensemble_averages_probabilities(segmenter: Path, run: Run) -> None:
    photo = scene(101, 67)
    photo.save("street.png")
    other = random_segmenter(Path("other"), seed=8)
    run("street.png", "--out", "o", "--ensemble", "other")
    mean = sum(load_segmenter(one).probabilities(photo) for one in (segmenter, other)) / 2
    assert np.array_equal(np.asarray(opened("o/masks/street.png")), mean.argmax(axis=0))
    shown = np.asarray(opened("o/confidence/street.png"))
    assert np.abs(shown - 255 * mean.max(axis=0)).max() <= 0.51
    assert (mean.argmax(axis=0) != load_segmenter(segmenter)(photo)).any()
    Path("photos").mkdir()
    photo.save("photos/street.png")
    command = ("--images", "photos", "--masks", "o/masks", "--out", "e", "--ensemble", "other")
    run(*command, app=evaluate.app)  # its predictions are those of predict: no error
    found = json.loads(Path("e/metrics.json").read_text())
    assert found["pixel accuracy"] == 1
    assert found["protocol"]["network"] == "mean of 2 segmenters' probabilities"
    random_segmenter(Path("demo"), space=LABEL_SPACES["demo"])
    for name, words in (
        ("demo", f"--ensemble demo: has other classes (bicycle, .*than --model {segmenter}"),
        (segmenter, "has the same weights as --model"),
    ):
        said = run("street.png", "--out", "p", "--ensemble", name, code=2)
        assert re.search(words.replace("(", "\\("), said)


def test_bad_input_is_refused_in_one_sentence(run: Run) -> None:
    Path("empty").mkdir()
    Path("notes.md").write_text("no photo")
    Path("torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    Path("noise.mp4").write_bytes(bytes(range(256)) * 40)
    for name, words in (
        ("missing.png", "no such file or folder"),
        ("empty", "contains neither a photo"),
        ("notes.md", "must be a photo"),
        ("torn.jpg", "torn.jpg"),
        ("noise.mp4", "not readable as a video"),
    ):
        assert words in run(name, "--out", "o", code=2)
        assert not Path("o").exists()
    scene(96, 64).save("empty/a.png")
    assert "would replace" in run("empty", "--out", "empty", code=2)


def test_videos_without_pyav_end_in_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("ride.mp4").touch()
    monkeypatch.setitem(sys.modules, "av", None)
    said = run("ride.mp4", "--out", "o", code=2)
    assert "error: videos need av: pip install -e '.[deploy]'" in said
    scene(96, 64).save("a.png")
    run("a.png", "--out", "o")
