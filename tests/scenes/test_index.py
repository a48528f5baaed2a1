"""The index: what prepare found, written and read; it knows no mask and leads nowhere else."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import open_dataset
from pipeline.datasets.collect import index_scenes, used_scenes
from pipeline.scenes.index import SceneIndex


def save(path: Path, height: int, width: int, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((height, width, 3), value, np.uint8)).save(path)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """CamVid's layout with photos of two sizes, and a split that the pipeline does not use."""
    folder = tmp_path / "CamVid"
    save(folder / "train/a.png", 3, 5, 10)
    save(folder / "train/b.png", 4, 6, 20)
    save(folder / "val/a.png", 3, 5, 30)
    save(folder / "test/a.png", 3, 5, 40)
    return folder


def index_of(root: Path) -> SceneIndex:
    dataset = open_dataset("camvid", root)
    return index_scenes(dataset, used_scenes(dataset))


def test_the_index_tells_size_and_digest_of_each_training_and_validation_photo(root: Path) -> None:
    index = index_of(root)
    assert [(photo.key, photo.split, photo.image, photo.size) for photo in index.photos] == [
        ("train/a", "train", "train/a.png", (3, 5)),
        ("train/b", "train", "train/b.png", (4, 6)),
        ("val/a", "val", "val/a.png", (3, 5)),
    ]
    for photo in index.photos:
        content = photo.path(root).read_bytes()
        assert photo.digest == hashlib.sha256(content).hexdigest()
    assert [photo.key for photo in index.of_split("val")] == ["val/a"]
    assert index.of_split("test") == []


def test_an_index_comes_back_as_it_was_written(root: Path, tmp_path: Path) -> None:
    index = index_of(root)
    index.write(tmp_path / "scenes.json")
    assert SceneIndex.read(tmp_path / "scenes.json") == index
    content = json.loads((tmp_path / "scenes.json").read_text("utf-8"))
    assert set(content["photos"][0]) == {"key", "split", "image", "size", "digest"}  # no mask


def test_the_index_does_not_depend_on_where_the_data_set_lies(root: Path, tmp_path: Path) -> None:
    index = index_of(root)
    root.rename(tmp_path / "moved")
    assert index_of(tmp_path / "moved") == index


def test_other_bytes_have_another_digest_even_of_the_same_pixels(root: Path) -> None:
    before = index_of(root).photos
    Image.open(root / "train/a.png").save(root / "train/a.png", compress_level=0)
    save(root / "val/a.png", 3, 5, 31)
    after = index_of(root).photos
    changed = [one.digest != other.digest for one, other in zip(before, after, strict=True)]
    assert changed == [True, False, True]


@pytest.mark.parametrize("image", ["../secret.png", "train/../../secret.png", "/etc/secret.png"])
def test_an_index_that_leads_out_of_the_data_set_is_refused(root: Path, image: str) -> None:
    photo = replace(index_of(root).photos[0], image=image)
    with pytest.raises(ValueError, match=r"leads out of .*CamVid; run `dvc repro prepare`"):
        photo.path(root)
    assert replace(photo, image="train/..a.png").path(root) == root / "train/..a.png"


def test_a_photo_that_cannot_be_read_stops_the_index_and_is_named(root: Path) -> None:
    (root / "train/b.png").write_bytes((root / "train/b.png").read_bytes()[:45])
    with pytest.raises(ValueError, match=r"train/b\.png: not readable as an image"):
        index_of(root)


BROKEN = {
    "no JSON": "{",
    "a list": "[]",
    "nothing": "{}",
    "a photo without digest": '{"dataset": "camvid", "photos": [{"key": "a", "split": "b"}]}',
    "a size of one side": '{"dataset": "camvid", "photos": [{"key": "a", "split": "b", '
    '"image": "c", "size": [1], "digest": "d"}]}',
    "photos of nothing": '{"dataset": "camvid", "classes": [], "photos": null}',
    "no classes": '{"dataset": "camvid", "photos": []}',
    "a colour of two": '{"dataset": "x", "classes": [{"name": "a", "colour": [1, 2], "words": []}],'
    '"photos": []}',
    "another text": "caf\udce9",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_index_is_refused_in_one_sentence(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "scenes.json"
    path.write_bytes(BROKEN[kind].encode("utf-8", "surrogateescape"))
    with pytest.raises(
        ValueError, match=r"json: not a scene index \(.*\); run `dvc repro prepare`$"
    ):
        SceneIndex.read(path)


def test_a_missing_index_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"scenes\.json: no such index; run `dvc repro prepare`$"):
        SceneIndex.read(tmp_path / "scenes.json")
