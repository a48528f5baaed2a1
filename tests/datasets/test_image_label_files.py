"""Files of image-level labels: read as written, each mistake named, nothing in them executed."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.datasets.image_label_files import match_keys, read_label_file

OFFICIAL = Path(__file__).parents[3] / "shared" / "official-labels"
CLASSES = ["road", "car", "traffic light"]
HEADER = "photo,road,car,traffic light\n"
ROW = np.array([True, False, False])

TABLES = {
    "plain": HEADER + "train/a,1,1,0\n",
    "byte order mark": "\ufeff" + HEADER + "train/a,1,1,0\n",
    "line ends of Windows": HEADER.replace("\n", "\r\n") + "train/a,1,1,0",
    "empty lines": HEADER + "\ntrain/a,1,1,0\n\n\n",
    "another order": "key,traffic light,car,road\ntrain/a,0,1,1\n",
    "quotes": '"photo";"road";"car";"traffic light"\n"train/a";"1";"1";"0"\n',
    "semicolons": "photo;road;car;traffic light\r\ntrain/a;1;1;0\r\n",
    "tabs": "photo\troad\tcar\ttraffic light\ntrain/a\t1\t1\t0\n",
    "empty columns": "photo,road,car,traffic light,,\ntrain/a,1,1,0,,\n,,,,,\n",
    "empty cells": HEADER + "train/a,1,1,\n",
    "a row that ends early": HEADER + "train/a,x,X\n",
    "truth values": HEADER + "train/a,TRUE,true,FALSE\n",
    "numbers beside gaps": HEADER + "train/a,1.0,1.0,\n",
    "Excel's first line": "sep=;\r\nphoto;road;car;traffic light\r\ntrain/a;1;1;0\r\n",
    "capitals": "Photo,Road,CAR, Traffic Light\ntrain/a,1,1,0\n",
}


@pytest.mark.parametrize("habit", TABLES)
def test_tables_of_people_and_spreadsheets_are_read(tmp_path: Path, habit: str) -> None:
    (tmp_path / "x.csv").write_text(TABLES[habit], newline="")
    labels = read_label_file(tmp_path / "x.csv", CLASSES)
    assert {key: row.tolist() for key, row in labels.items()} == {"train/a": [True, True, False]}


@pytest.mark.parametrize(
    "text",
    [
        "photo,tags\na.jpg,road|car\nb,\n",
        'photo,tags\na.jpg,"road, car"\nb,""\n',
        "photo,tags\na.jpg,road,car\nb,,\n",
        "photo;tags;;\na.jpg;Road;CAR;\nb;;;\n",
        "filename;labels\na.jpg;road|car|\nb;\n",
    ],
)
def test_tags_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    labels = read_label_file(tmp_path / "x.csv", CLASSES)
    found = {key: row.tolist() for key, row in labels.items()}
    assert found == {"a.jpg": [True, True, False], "b": [False, False, False]}


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("x.CSV", "photo,tags\na,ROAD\n"),
        ("x.tsv", "photo\ttags\na\tRoad\n"),
        ("x.JSON", '{"a": ["Road "]}'),
    ],
)
def test_endings_and_classes_may_have_another_case(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    assert read_label_file(tmp_path / name, CLASSES)["a"].tolist() == [True, False, False]
    (tmp_path / "y.csv").write_text("photo,tags\na,Car\n")
    assert read_label_file(tmp_path / "y.csv", ["car", "Car"])["a"].tolist() == [False, True]
    (tmp_path / "y.csv").write_text("photo,tags\na,CAR\n")
    with pytest.raises(ValueError, match="'CAR', which is not a class"):
        read_label_file(tmp_path / "y.csv", ["car", "Car"])
    with pytest.raises(ValueError, match=r"x\.txt: image-level labels must be a \.csv, \.tsv,"):
        read_label_file(tmp_path / "x.txt", CLASSES)


WANTED = (
    "; it must be 'photo' and a column for each of the 3 classes (road, car, traffic light), or "
    "'photo,tags'"
)
COLUMNS = "columns, the header 4; write a cell for each of the 3 classes"
MARK = "; write 1 or x where the class is in the photo, and 0 or nothing where it is not"


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("", "the header is missing: the file is empty" + WANTED),
        ("road,car\n", "the header begins with 'road'" + WANTED),
        ("key,road,traffic light\n", "the header has no column of 'car'" + WANTED),
        (
            "key,road,cra,traffic light\n",
            "the header has the column 'cra', which is not a class; did you mean 'car'?" + WANTED,
        ),
        ("key,road,car,car,traffic light\n", "the header has two columns of 'car'" + WANTED),
        (HEADER + "a,1,0,1\nb,1,0\n", f"line 3 has 3 {COLUMNS}"),
        (HEADER + "a,1,0,1,1\n", f"line 2 has 5 {COLUMNS}"),
        (HEADER + "a,1,maybe,1\n", "line 2 contains 'maybe'" + MARK),
        (HEADER + "a,1,0,1\n\na,1,0,1\n", "line 4 names 'a' again; keep one line"),
        ("photo,tags\na,road zebra\n", "line 2 has the tag 'road zebra', which is not a class"),
        (
            "sep=;\nphoto;tags\na;road\nb;z\n",
            "line 4 has the tag 'z', which is not a class",
        ),
    ],
)
def test_a_mistake_in_a_table_is_named_with_its_line(
    tmp_path: Path, text: str, sentence: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=f"^{re.escape(f'{path}: {sentence}')}$"):
        read_label_file(path, CLASSES)


@pytest.mark.parametrize("kind", ["missing", "folder", "another encoding", "one endless field"])
def test_what_is_not_a_csv_is_refused(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "x.csv"
    if kind == "folder":
        path.mkdir()
    elif kind == "another encoding":
        path.write_bytes((HEADER + "stra\u00dfe,1,0,1\n").encode("latin-1"))
    elif kind == "one endless field":
        path.write_text(HEADER + "a" * 200_000)
    with pytest.raises(ValueError, match=r"x\.csv: not readable as CSV \(.*\); (check|save)"):
        read_label_file(path, CLASSES)


def test_json_lists_the_classes_of_each_photo(tmp_path: Path) -> None:
    content = {"train/a": ["traffic light", "road"], "train/b": []}
    (tmp_path / "x.json").write_text(json.dumps(content), "utf-8-sig")
    labels = read_label_file(tmp_path / "x.json", CLASSES)
    found = {key: row.tolist() for key, row in labels.items()}
    assert found == {"train/a": [True, False, True], "train/b": [False, False, False]}


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "not readable as JSON"),
        ("[" * 200_000, "not readable as JSON"),
        ("[]", "must be an object"),
        ('{"a": ["cra"]}', "'a' must have a list of classes"),
        ('{"a": "road"}', "'a' must have a list of classes"),
        ('{"a": [1]}', "'a' must have a list of classes"),
        ('{"a": [], "a": []}', "names 'a' twice; keep one"),
    ],
)
def test_a_mistake_in_json_is_named(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=rf"x\.json: .*{re.escape(found)}"):
        read_label_file(tmp_path / "x.json", [*CLASSES, "1"])


@pytest.mark.parametrize("dtype", [np.float32, np.int64, bool])
def test_the_authors_format_is_a_pickled_dict_of_arrays(tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "x.npy", {"a": np.array([1, 0, 1], dtype)}, allow_pickle=True)  # type: ignore[arg-type]
    labels = read_label_file(tmp_path / "x.npy", CLASSES)
    assert (labels["a"].tolist(), labels["a"].dtype) == ([True, False, True], bool)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ({"a": np.ones(2)}, r"'a' must have 0 or 1 for each of the 3 classes, got .* \(2,\)"),
        ({"a": np.full(3, 2)}, "'a' must have 0 or 1"),
        ({"a": "road"}, "'a' must have 0 or 1"),
        ({}, "must hold a dict"),
        ([1], "must hold a dict"),
        (None, "not readable as labels.npy .*not a pickled dict"),  # an array of numbers
        (b"", "not readable as labels.npy"),
        (b"\x93NUMPY\x01\x00v\x00{'descr'", "not readable as labels.npy"),
    ],
)
def test_an_invalid_npy_is_refused(tmp_path: Path, content: Any, found: str) -> None:
    array = np.empty((), dtype=object)
    array[()] = content
    np.save(tmp_path / "x.npy", np.ones(3) if content is None else array, allow_pickle=True)
    if isinstance(content, bytes):
        (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ValueError, match=rf"x\.npy: {found}"):
        read_label_file(tmp_path / "x.npy", CLASSES)


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the authors' labels are not on this machine")
def test_the_authors_files_are_read() -> None:
    for name, photos, classes in (("camvid", 701, 11), ("cityscapes", 3475, 19)):
        labels = read_label_file(OFFICIAL / f"{name}.npy", [f"class {n}" for n in range(classes)])
        assert len(labels) == photos
        assert {row.shape for row in labels.values()} == {(classes,)}


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("train/trip/a", "train/trip/a"),
        ("a.JPG", "train/trip/a"),
        ("./trip/a.jpg", "train/trip/a"),
        ("C:\\photos\\trip\\a.jpg", "train/trip/a"),
        ("valid/b.jpg", "val/b"),
        ("Validation\\b.jpg", "val/b"),
        ("photos/images/Val/b", "val/b"),
        ("Train/b.jpg", "train/b"),
        ("Stra\u00dfe bei Mu\u0308nchen.JPG ", "train/Stra\u00dfe bei M\u00fcnchen"),
        ("c.png", "train/c.png"),
        ("train/x", "train/x"),  # a whole key, though another ends so
    ],
)
def test_a_photo_is_named_by_any_end_of_its_path(written: str, key: str) -> None:
    keys = ["train/trip/a", "train/b", "val/b", "train/Stra\u00dfe bei M\u00fcnchen"]
    keys += ["train/c.png", "train/x", "train/train/x"]
    assert list(match_keys({written: ROW}, keys, Path("x.csv"))) == [key]


@pytest.mark.parametrize(
    ("written", "keys", "says"),
    [
        (
            "other",
            ["train/a"],
            r"labels 'other', but the data set has no such photo \(names look l",
        ),
        ("a", ["train/x/a", "train/y/a"], "'a' is ambiguous: it matches 'train/x/a' and 'train/y"),
        ("a.jpg a", ["train/a"], r"names 'a\.jpg' and 'a', the same photo; keep one"),
    ],
)
def test_labels_of_no_photo_or_several_are_refused(
    written: str, keys: list[str], says: str
) -> None:
    for name in ("x.csv", "x.npy"):
        with pytest.raises(ValueError, match=rf"{name}: {says}"):
            match_keys(dict.fromkeys(written.split(), ROW), keys, Path(name))


def test_an_unknown_photo_is_named_with_its_line_and_a_similar_name(tmp_path: Path) -> None:
    path = tmp_path / "x.csv"
    path.write_text("photo,tags\nIMG_1234.jpg,road\nIMG_1253.jpg,car\n")
    with pytest.raises(ValueError, match=r": line 3 labels 'IMG_1253\.jpg'.*mean 'IMG_1235'\?"):
        match_keys(read_label_file(path, CLASSES), ["train/IMG_1234", "train/IMG_1235"], path)


def test_an_authors_file_may_label_photos_of_other_splits() -> None:
    labels = {"ulm/ulm_1": ROW, "bonn/bonn_2": ~ROW, "berlin/berlin_3": ROW}
    found = match_keys(labels, ["train/ulm_1", "val/bonn_2"], Path("x.npy"))
    rows = {key: row.tolist() for key, row in found.items()}
    assert rows == {"train/ulm_1": ROW.tolist(), "val/bonn_2": (~ROW).tolist()}
