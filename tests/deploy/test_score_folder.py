"""Evaluation of a folder, and predictions for the Cityscapes server."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.deploy.score_folder import label_ids, submission_names
from pipeline.scenes.classes import LABEL_SPACES
from pipeline.segmenter.saved import load_segmenter
from stages.eval import app
from tests.deploy.conftest import Run
from tests.helpers.small_photos import random_segmenter

# github.com/mcordts/cityscapesScripts, helpers/labels.py: labelIds of trainIds 0 to 18.
LABEL_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def save_photo(path: Path, width: int = 2048, height: int = 1024) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 90)).save(path)
    return path


def test_classes_become_label_ids_by_name() -> None:
    assert label_ids(LABEL_SPACES["cityscapes"].names).tolist() == LABEL_IDS
    assert label_ids(["sky", "road"]).tolist() == [23, 7]
    with pytest.raises(ValueError, match="--submission: the segmenter's class 'pavement' is not"):
        label_ids(["road", "pavement"])


@pytest.mark.parametrize(
    ("names", "size", "says"),
    [
        (["ulm_00_19.png"], (8, 4), "needs photos named <city>_<sequence>_<frame>"),
        (["ulm_000000_000019.png"], (1024, 512), "2048x1024 pixels, the photo has 1024x512"),
        (
            ["x/ulm_000000_000019_leftImg8bit.png", "y/ulm_000000_000019.png"],
            (2048, 1024),
            "another photo shows the same frame; keep one of them",
        ),
    ],
)
def test_what_the_server_would_refuse_is_refused(
    tmp_path: Path, names: list[str], size: tuple[int, int], says: str
) -> None:
    photos = {name: save_photo(tmp_path / name, *size) for name in names}
    with pytest.raises(ValueError, match=re.escape(f"{photos[names[-1]]}: ") + f".*{says}"):
        submission_names(photos)


def test_a_folder_of_cities_gives_a_folder_of_label_ids(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    space = LABEL_SPACES["demo"]
    model = random_segmenter(tmp_path / "model", space=space)
    save_photo(Path("test/bad-honnef/bad-honnef_000000_000019_leftImg8bit.png"))
    options = ["--images", "test", "--out", "sent", "--submission"]
    assert "scores the 1525 photos" in run(*options, model=model, app=app)
    sent = sorted(path.name for path in Path("sent/submission").iterdir())
    assert sent == ["bad-honnef_000000_000019_predLabelIds.png"]
    with Image.open(f"sent/submission/{sent[0]}") as picture:
        assert (picture.size, picture.mode) == ((2048, 1024), "L")
        ids = np.asarray(picture)
    with Image.open("sent/masks/bad-honnef/bad-honnef_000000_000019_leftImg8bit.png") as picture:
        indices = np.asarray(picture)
    known = dict(zip(LABEL_SPACES["cityscapes"].names, LABEL_IDS, strict=True))
    assert np.array_equal(ids, np.array([known[name] for name in space.names])[indices])
    save_photo(Path("test/extra.png"))
    run(*options, model=model, app=app, code=2)
    assert sorted(path.name for path in Path("sent/submission").iterdir()) == sent


def test_metrics_are_those_of_the_written_masks(
    tmp_path: Path, run: Run, segmenter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photo = save_photo(Path("in/a.png"), 96, 64)
    human = load_segmenter(segmenter)(photo)
    human[:16] = (human[:16] + 1) % 11
    Path("human").mkdir()
    Image.fromarray(human).save("human/a.png")
    run(*["--images", "in", "--masks", "human", "--mask-ids", "class-index", "--out", "o"], app=app)
    metrics = json.loads(Path("o/metrics.json").read_text())
    assert metrics["pixel accuracy"] == pytest.approx(0.75)
