"""The command `predict`: photos, folders and videos."""

import os
import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.deploy.video import probe_video, read_frames
from pipeline.report.drawing import palette_of
from pipeline.segmenter.saved import load_segmenter
from stages import eval as evaluate
from tests.deploy.conftest import Run
from tests.helpers import ROOT
from tests.helpers.small_photos import SPACE, film, scene

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
    run(film(Path(f"ride{ending}"), size=(65, 97), rate=rate), "--out", "o", "--frames")
    made = probe_video(Path("o/overlays/ride.mp4"))
    assert (made.size, made.sound) == ((65, 97), False)
    assert abs(made.rate / rate - 1) < 0.01
    assert len(list(read_frames(made))) == 5
    masks = sorted(path.name for path in Path("o/masks/ride").iterdir())
    assert masks == [f"{number:06d}.png" for number in range(5)]


def test_bad_input_is_refused_in_one_sentence(run: Run) -> None:
    Path("empty").mkdir()
    Path("notes.txt").write_text("no photo")
    Path("torn.jpg").write_bytes(b"\xff\xd8\xff\xe0 torn")
    Path("noise.mp4").write_bytes(bytes(range(256)) * 40)
    for name, words in (
        ("missing.png", "no such file or folder"),
        ("empty", "contains neither a photo"),
        ("notes.txt", "must be a photo"),
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
