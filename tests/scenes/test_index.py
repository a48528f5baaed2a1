"""Scene index and image-level labels: read as written; anything else is refused."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.datasets import load_scenes, open_dataset
from pipeline.datasets.collect import index_scenes, used_scenes
from pipeline.scenes.image_labels import read_image_labels, write_image_labels
from pipeline.scenes.index import SceneIndex

CLASSES = ["road", "car", "traffic light"]
HEADER = b"key,road,car,traffic light\n"


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


def test_the_index_has_size_and_digest_of_training_and_validation_photos(root: Path) -> None:
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


def test_an_index_is_read_as_written_wherever_the_data_set_lies(root: Path, tmp_path: Path) -> None:
    index = index_of(root)
    index.write(tmp_path / "scenes.json")
    assert SceneIndex.read(tmp_path / "scenes.json") == index
    content = json.loads((tmp_path / "scenes.json").read_text("utf-8"))
    assert set(content["photos"][0]) == {"key", "split", "image", "size", "digest"}  # no mask
    root.rename(tmp_path / "moved")
    assert index_of(tmp_path / "moved") == index


@pytest.mark.parametrize("image", ["../secret.png", "train/../../secret.png", "/etc/secret.png"])
def test_an_index_that_leads_out_of_the_data_set_is_refused(root: Path, image: str) -> None:
    photo = replace(index_of(root).photos[0], image=image)
    with pytest.raises(ValueError, match=r"leads out of .*CamVid; run `dvc repro prepare`"):
        photo.path(root)
    assert replace(photo, image="train/..a.png").path(root) == root / "train/..a.png"


def test_a_photo_that_cannot_be_read_is_named(root: Path) -> None:
    (root / "train/b.png").write_bytes((root / "train/b.png").read_bytes()[:45])
    with pytest.raises(ValueError, match=r"train/b\.png: not readable as an image"):
        index_of(root)


def test_a_name_with_a_carriage_return_is_refused(root: Path) -> None:
    (root / "train/b.png").rename(root / "train/b\rc.png")
    with pytest.raises(ValueError, match=r"b\\rc\.png': has a carriage return in its name; rename"):
        load_scenes("camvid", root, "train")


BROKEN = {
    "not JSON": "{",
    "a list": "[]",
    "a photo without digest": '{"dataset": "camvid", "photos": [{"key": "a", "split": "b"}]}',
    "a size of one side": '{"dataset": "camvid", "photos": [{"key": "a", "split": "b", '
    '"image": "c", "size": [1], "digest": "d"}]}',
    "no classes": '{"dataset": "camvid", "classes": [], "photos": []}',
    "a colour of two": '{"dataset": "x", "classes": [{"name": "a", "colour": [1, 2], "words": []}],'
    '"photos": []}',
    "not UTF-8": "caf\udce9",
}


@pytest.mark.parametrize("kind", BROKEN)
def test_an_invalid_index_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "scenes.json"
    with pytest.raises(ValueError, match=r"scenes\.json: no such index; run `dvc repro prepare`$"):
        SceneIndex.read(path)
    path.write_bytes(BROKEN[kind].encode("utf-8", "surrogateescape"))
    with pytest.raises(ValueError, match=r"not a scene index \(.*\); run `dvc repro prepare`$"):
        SceneIndex.read(path)


def test_image_labels_are_a_table_of_0_and_1(tmp_path: Path) -> None:
    labels = {"train/a": np.array([True, False, True]), 'val/"b", c': np.zeros(3, bool)}
    write_image_labels(tmp_path / "x.csv", labels, CLASSES)
    text = (tmp_path / "x.csv").read_bytes()
    assert text == HEADER + b'train/a,1,0,1\n"val/""b"", c",0,0,0\n'


KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"))


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, st.lists(st.booleans(), min_size=3, max_size=3), max_size=4))
def test_image_labels_are_read_as_written(tmp_path: Path, rows: dict[str, list[bool]]) -> None:
    labels = {key: np.array(row) for key, row in rows.items()}
    write_image_labels(tmp_path / "x.csv", labels, CLASSES)
    read = read_image_labels(tmp_path / "x.csv", CLASSES)
    assert {key: row.tolist() for key, row in read.items()} == rows
    assert all(row.dtype == np.bool_ for row in read.values())


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (None, "no such image-level labels"),
        (b"", "its columns are not 'key' and the 3 classes"),
        (b"key,road,car,bus\na,1,0,0\n", "its columns are not"),
        (HEADER + b"a,1,0\n", "a line is damaged or a key occurs twice"),
        (HEADER + b"a,1,0,2\n", "a line is damaged"),
        (HEADER + b"a,1,0,0\na,1,0,0\n", "a key occurs twice"),
        (HEADER + b"stra\xdfe,1,0,0\n", "not readable as CSV"),
        (HEADER + b"a" * 200_000, "not readable as CSV"),
    ],
)
def test_invalid_image_labels_are_refused(
    tmp_path: Path, content: bytes | None, found: str
) -> None:
    if content is not None:
        (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"x\.csv: .*{found}.*; run `dvc repro prepare`$"):
        read_image_labels(tmp_path / "x.csv", CLASSES)
