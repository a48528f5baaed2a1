"""Predictions for the Cityscapes server."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pipeline.deploy.submission import label_ids, submission_names

from pipeline.datasets.base import Scene
from pipeline.scenes.classes import LABEL_SPACES
from tests.helpers.tiny_run import prepare_folder, run_stage, run_until

# github.com/mcordts/cityscapesScripts, helpers/labels.py: what trainIds 0 to 18 are in files.
LABEL_IDS = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def save_photo(path: Path, width: int = 2048, height: int = 1024) -> Scene:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, height), (90, 120, 90)).save(path)
    return Scene(path, None, "folder", path.stem)


def test_classes_become_label_ids_by_name() -> None:
    names = LABEL_SPACES["cityscapes"].names
    assert label_ids(names).tolist() == LABEL_IDS
    assert label_ids(["sky", "road"]).tolist() == [23, 7]
    with pytest.raises(ValueError, match="--submission: the segmenter knows 'pavement', which is"):
        label_ids(["road", "pavement"])


def test_a_photo_s_prediction_is_named_by_city_sequence_and_frame(tmp_path: Path) -> None:
    scene = save_photo(tmp_path / "bad-honnef_000003_000019_leftImg8bit.png")
    names = submission_names([scene])
    assert names == {scene.key: "bad-honnef_000003_000019_predLabelIds.png"}


@pytest.mark.parametrize(
    ("name", "size", "says"),
    [
        ("holiday.png", (2048, 1024), "the server takes photos named <city>_<sequence>_<frame>"),
        ("ulm_00_19.png", (2048, 1024), "the server takes photos named"),
        ("ulm_000000_000019.png", (1024, 512), "2048x1024 pixels, the photo is 1024x512"),
    ],
)
def test_what_the_server_refuses_is_refused(
    tmp_path: Path, name: str, size: tuple[int, int], says: str
) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as caught:
        submission_names([save_photo(tmp_path / name, *size)])
    assert str(tmp_path / name) in str(caught.value)


def test_two_photos_of_one_frame_are_refused(tmp_path: Path) -> None:
    names = ["x/ulm_000000_000019_leftImg8bit.png", "y/ulm_000000_000019.png"]
    with pytest.raises(ValueError, match="another photo is of the same frame; keep one of them"):
        submission_names([save_photo(tmp_path / name) for name in names])


def test_a_folder_of_cities_gives_a_folder_of_label_ids(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare_folder(tmp_path, {"train.steps": 2})
    run_until("train")
    for city in ("berlin", "bonn"):
        save_photo(tmp_path / f"test/{city}/{city}_000000_000019_leftImg8bit.png")
    options = [
        "--images",
        "test",
        "--out",
        "sent",
        "--submission",
        "--flip",
        "--window",
        "64",
        "64",
    ]
    result = run_stage("eval", *options)
    assert result.exit_code == 0, result.output
    files = sorted((tmp_path / "sent/submission").iterdir())
    assert [path.name for path in files] == [
        "berlin_000000_000019_predLabelIds.png",
        "bonn_000000_000019_predLabelIds.png",
    ]
    with Image.open(files[0]) as picture:
        assert (picture.size, picture.mode) == ((2048, 1024), "L")
        sent = np.asarray(picture)
    with Image.open(tmp_path / "sent/masks/berlin/berlin_000000_000019_leftImg8bit.png") as picture:
        indices = np.asarray(picture)
    known = dict(zip(LABEL_SPACES["cityscapes"].names, LABEL_IDS, strict=True))
    table = np.array([known[name] for name in LABEL_SPACES["demo"].names])
    assert np.array_equal(sent, table[indices])
    save_photo(tmp_path / "test/extra.png")
    assert run_stage("eval", *options).exit_code == 2
    assert len(list((tmp_path / "sent/submission").iterdir())) == 2  # what was there stays
