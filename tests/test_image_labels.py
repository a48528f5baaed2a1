"""Image-level labels: simulated as counted by hand, read as written, each mistake named."""

import contextlib
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from pipeline.config import DatasetParams
from pipeline.datasets import open_dataset
from pipeline.datasets.scene import Scene
from pipeline.image_labels import (
    check_keys,
    collect_image_labels,
    drop_unlabelled,
    read_image_labels,
    read_scene_mask,
    simulate_image_labels,
    write_image_labels,
)

CAMVID = open_dataset("camvid", Path())
READ = CAMVID.read_mask
CLASSES = ["road", "car", "traffic light"]


def scene_of(folder: Path, key: str, ids: list[list[int]] | None) -> Scene:
    """A photo of 2x4 pixels, with a mask of these ids where there are any."""
    split, name = key.split("/")
    image, mask = folder / split / f"{name}.png", folder / f"{split}annot" / f"{name}.png"
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 2)).save(image)
    if ids is not None:
        Image.fromarray(np.array(ids, dtype=np.uint8)).save(mask)
    return Scene(image, None if ids is None else mask, split, key)


def present(labels: np.ndarray) -> list[int]:
    return np.flatnonzero(labels).tolist()


@pytest.mark.parametrize(
    ("min_pixels", "classes"), [(1, [0, 3, 10]), (2, [0, 3]), (3, [0]), (4, [])]
)
def test_a_class_is_in_the_image_from_min_pixels_on_and_void_never(
    tmp_path: Path, min_pixels: int, classes: list[int]
) -> None:
    scene = scene_of(tmp_path, "train/a", [[0, 0, 0, 10], [3, 3, 11, 255]])
    labels = simulate_image_labels([scene], read_mask=READ, num_classes=11, min_pixels=min_pixels)
    assert list(labels) == ["train/a"]
    assert (labels["train/a"].shape, labels["train/a"].dtype) == ((11,), np.bool_)
    assert present(labels["train/a"]) == classes


def test_a_photo_without_a_mask_gets_no_simulated_labels(tmp_path: Path) -> None:
    scenes = [scene_of(tmp_path, "train/a", None), scene_of(tmp_path, "val/b", [[11] * 4] * 2)]
    labels = simulate_image_labels(scenes, read_mask=READ, num_classes=11, min_pixels=1)
    assert {key: present(row) for key, row in labels.items()} == {"val/b": []}


def test_a_mask_of_another_size_than_its_photo_is_refused(tmp_path: Path) -> None:
    scene = scene_of(tmp_path, "train/a", [[0, 1, 2]])
    sentence = (
        f"{scene.mask}: is 3x1 pixels, but its photo a.png is 4x2; export the mask at the photo's "
        "size"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        simulate_image_labels([scene], read_mask=READ, num_classes=11, min_pixels=1)


def test_a_scene_without_a_mask_has_none_to_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.png: has no human mask; add one or leave the photo"):
        read_scene_mask(scene_of(tmp_path, "train/a", None), READ)


def test_labels_come_back_as_they_were_written(tmp_path: Path) -> None:
    labels = {
        "train/a": np.array([True, False, True]),
        'val/"b", c': np.array([False, True, False]),
    }
    write_image_labels(tmp_path / "x.csv", labels, CLASSES)
    text = (tmp_path / "x.csv").read_bytes()
    assert text == b'key,road,car,traffic light\ntrain/a,1,0,1\n"val/""b"", c",0,1,0\n'
    read = read_image_labels(tmp_path / "x.csv", CLASSES)
    assert {key: row.tolist() for key, row in read.items()} == {
        key: row.tolist() for key, row in labels.items()
    }
    assert all(row.dtype == np.bool_ for row in read.values())


HEADER = "key,road,car,traffic light\n"


@pytest.mark.parametrize(
    "text",
    [
        HEADER + "train/a,1,1,0\n",
        "\ufeff" + HEADER + "train/a,1,1,0\n",  # as Excel writes UTF-8
        HEADER.replace("\n", "\r\n") + "train/a,1,1,0",
        HEADER + "\ntrain/a,1,1,0\n\n\n",
        "key,traffic light,car,road\ntrain/a,0,1,1\n",
        'key,"road",car,"traffic light"\n"train/a","1","1","0"\n',
    ],
)
def test_any_order_byte_order_mark_line_end_and_quotes_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_bytes(text.encode())
    labels = read_image_labels(tmp_path / "x.csv", CLASSES)
    assert {key: row.tolist() for key, row in labels.items()} == {"train/a": [True, True, False]}


WANTED = "the header must be 'key' and the 3 classes (road, car, traffic light), but "
LINE = "must be a key and 0 or 1 for each of the 3 classes, got "
REFUSED: list[tuple[str, str]] = [
    ("", WANTED + "the file is empty"),
    ("photo,road,car,traffic light\n", WANTED + "it begins with 'photo'"),
    ("key;road;car;traffic light\n", WANTED + "it begins with 'key;road;car;traffic light'"),
    ("key,road,traffic light\n", WANTED + "'car' is missing"),
    ("key,road,car,traffic light,zebra\n", WANTED + "'zebra' is no class"),
    ("key,road,cra,traffic light\n", WANTED + "'cra' is no class"),
    ("key,road,car,car,traffic light\n", WANTED + "'car' is there twice"),
    (HEADER + "a,1,0,1\nb,1,0\n", f"line 3 {LINE}3 columns"),
    (HEADER + "a,1,0,1,1\n", f"line 2 {LINE}5 columns"),
    (HEADER + "a,1,0,2\n", f"line 2 {LINE}'2'"),
    (HEADER + "a,1,,1\n", f"line 2 {LINE}''"),
    (HEADER + "a,1,yes,1\n", f"line 2 {LINE}'yes'"),
    (HEADER + "a,1,0,1\na,1,0,1\n", "line 3 names 'a' again; keep one of the lines"),
]


@pytest.mark.parametrize(("text", "sentence"), REFUSED)
def test_a_mistake_in_the_file_is_named_with_its_line(
    tmp_path: Path, text: str, sentence: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape("x.csv")) as caught:
        read_image_labels(path, CLASSES)
    assert str(caught.value) == f"{path}: {sentence}"


@pytest.mark.parametrize("kind", ["missing", "folder", "another encoding", "one endless field"])
def test_what_is_no_csv_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.csv"
    if kind == "folder":
        path.mkdir()
    elif kind == "another encoding":
        path.write_bytes((HEADER + "stra\u00dfe,1,0,1\n").encode("latin-1"))
    elif kind == "one endless field":
        path.write_text(HEADER + "a" * 200_000)
    with pytest.raises(ValueError, match=r"x\.csv: not readable as CSV \(.*\); check the file$"):
        read_image_labels(path, CLASSES)


PIECES = st.sampled_from(["key", *CLASSES, ",", "\n", "\r", '"', "0", "1", ",1", HEADER, "\ufeff"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES | st.text(max_size=2), max_size=30).map("".join), st.binary(max_size=2))
def test_random_text_raises_nothing_but_value_errors(
    tmp_path: Path, text: str, rest: bytes
) -> None:
    (tmp_path / "x.csv").write_bytes(text.encode("utf-8", "surrogatepass") + rest)
    with contextlib.suppress(ValueError):
        labels = read_image_labels(tmp_path / "x.csv", CLASSES)
        assert all(row.shape == (3,) for row in labels.values())


KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"))


@settings(max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, st.lists(st.booleans(), min_size=3, max_size=3), max_size=4))
def test_any_key_comes_back(tmp_path: Path, rows: dict[str, list[bool]]) -> None:
    labels = {key: np.array(row) for key, row in rows.items()}
    write_image_labels(tmp_path / "x.csv", labels, CLASSES)
    read = read_image_labels(tmp_path / "x.csv", CLASSES)
    assert {key: row.tolist() for key, row in read.items()} == rows


ROW = np.array([True, False, False])


def test_labels_of_an_unknown_photo_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x\.csv") as caught:
        check_keys({"train/a": ROW, "train/b": ROW}, ["train/a"], Path("x.csv"))
    sentence = "x.csv: labels 'train/b', which is no photo of the data set; remove its line"
    assert str(caught.value) == sentence


def test_a_training_photo_needs_a_line_and_a_validation_photo_does_not() -> None:
    keys = ["train/a", "train/b", "val/c"]
    check_keys({"train/a": ROW, "train/b": ROW}, keys, Path("x.csv"))
    with pytest.raises(ValueError, match=r"x\.csv") as caught:
        check_keys({"train/a": ROW, "val/c": ROW}, keys, Path("x.csv"))
    sentence = "x.csv: has no line for the training photo 'train/b'; add it"
    assert str(caught.value) == sentence


def test_a_photo_without_any_class_is_left_out_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    labels = {"train/a": ROW, "train/b": ~ROW & ROW}
    with caplog.at_level(logging.WARNING, "carb"):
        assert list(drop_unlabelled(labels)) == ["train/a"]
    assert caplog.messages == ["image labels: train/b has no class at all; left out"]


def dataset_params(root: Path, image_labels: Path | None) -> DatasetParams:
    labels = None if image_labels is None else str(image_labels)
    return DatasetParams(name="camvid", root=str(root), image_labels=labels, min_pixels=2)


def test_without_a_file_labels_are_simulated(tmp_path: Path) -> None:
    scenes = [
        scene_of(tmp_path, "train/a", [[0, 0, 3, 11], [5, 5, 5, 11]]),
        scene_of(tmp_path, "train/b", [[11, 11, 11, 11], [0, 1, 2, 3]]),
        scene_of(tmp_path, "val/c", [[7, 7, 7, 7], [7, 7, 7, 7]]),
    ]
    labels = collect_image_labels(scenes, CAMVID, dataset_params(tmp_path, None))
    found = {key: present(row) for key, row in labels.items()}
    assert found == {"train/a": [0, 5], "val/c": [7]}


def test_a_file_of_labels_is_taken_and_no_mask_opened(tmp_path: Path) -> None:
    scene = scene_of(tmp_path, "train/a", [[0] * 4] * 2)
    assert scene.mask is not None
    scene.mask.write_text("no mask")
    row = np.arange(11) == 4
    write_image_labels(tmp_path / "x.csv", {"train/a": row}, CAMVID.label_space.names)
    params = dataset_params(tmp_path, tmp_path / "x.csv")
    labels = collect_image_labels([scene], CAMVID, params)
    assert present(labels["train/a"]) == [4]


@pytest.mark.parametrize("ids", [None, [[11] * 4] * 2])
def test_no_usable_training_photo_is_an_error(tmp_path: Path, ids: list[list[int]] | None) -> None:
    scenes = [scene_of(tmp_path, "train/a", ids), scene_of(tmp_path, "val/b", [[0] * 4] * 2)]
    with pytest.raises(ValueError, match="no training photo has an image-level label; name a CSV"):
        collect_image_labels(scenes, CAMVID, dataset_params(tmp_path, None))
