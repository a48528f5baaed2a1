"""Files of image-level labels: read as written, each mistake named, nothing in them run."""

import contextlib
import json
import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.datasets.label_files import match_keys, read_label_file

CLASSES = ["road", "car", "traffic light"]


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
    labels = read_label_file(tmp_path / "x.csv", CLASSES)
    assert {key: row.tolist() for key, row in labels.items()} == {"train/a": [True, True, False]}


LIKE_EXCEL = {
    "semicolons": "photo;road;car;traffic light\r\ntrain/a;1;1;0\r\n",
    "tabs": "photo\troad\tcar\ttraffic light\ntrain/a\t1\t1\t0\n",
    "a quoted header": '"photo";"road";"car";"traffic light"\n"train/a";"1";"1";"0"\n',
    "empty columns": "photo,road,car,traffic light,,\ntrain/a,1,1,0,,\n,,,,,\n",
    "empty cells": "photo,road,car,traffic light\ntrain/a,1,1,\n",
    "a row that ends early": "photo,road,car,traffic light\ntrain/a,x,X\n",
    "truth values": "photo,road,car,traffic light\ntrain/a,TRUE,true,FALSE\n",
    "numbers beside gaps": "photo,road,car,traffic light\ntrain/a,1.0,1.0,\n",
    "Excel's first line": "sep=;\r\nphoto;road;car;traffic light\r\ntrain/a;1;1;0\r\n",
    "the same in quotes": '"sep=,"\nphoto,road,car,traffic light\ntrain/a,1,1,0\n',
    "capitals": "Photo,Road,CAR, Traffic Light\ntrain/a,1,1,0\n",
}


@pytest.mark.parametrize("habit", LIKE_EXCEL)
def test_what_spreadsheets_write_is_read(tmp_path: Path, habit: str) -> None:
    (tmp_path / "x.csv").write_text("\ufeff" + LIKE_EXCEL[habit], newline="")
    labels = read_label_file(tmp_path / "x.csv", CLASSES)
    assert {key: row.tolist() for key, row in labels.items()} == {"train/a": [True, True, False]}


@pytest.mark.parametrize(
    "text",
    [
        "photo,tags\na.jpg,road|car\nb,\n",
        "photo,tags\na.jpg,road;car\nb\n",
        'photo,tags\na.jpg,"road, car"\nb,""\n',
        "photo,tags\na.jpg,road,car\nb,,\n",
        "photo;tags;;\na.jpg;Road;CAR;\nb;;;\n",
        "filename;labels\na.jpg;road|car|\nb;\n",
    ],
)
def test_tags_of_a_photo_in_one_cell_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.csv").write_text(text)
    labels = read_label_file(tmp_path / "x.csv", CLASSES)
    assert {key: row.tolist() for key, row in labels.items()} == {
        "a.jpg": [True, True, False],
        "b": [False, False, False],
    }


def test_classes_that_differ_by_capitals_alone_are_told_apart(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("photo,tags\na,Car\n")
    assert read_label_file(tmp_path / "x.csv", ["car", "Car"])["a"].tolist() == [False, True]
    (tmp_path / "x.csv").write_text("photo,tags\na,CAR\n")
    with pytest.raises(ValueError, match="'CAR', which is no class"):
        read_label_file(tmp_path / "x.csv", ["car", "Car"])


WANTED = (
    "; it must be 'photo' and a column for each of the 3 classes (road, car, traffic light), or "
    "'photo,tags'"
)
COLUMNS = "columns, the header 4; write a cell for each of the 3 classes"
MARK = "; write 1 or x where the class is in the photo, and 0 or nothing where it is not"
REFUSED: list[tuple[str, str]] = [
    ("", "the header is missing: the file is empty" + WANTED),
    ("road,car\n", "the header begins with 'road'" + WANTED),
    ("key,road,traffic light\n", "the header has no column of 'car'" + WANTED),
    (
        "key,road,car,traffic light,zebra\n",
        "the header has the column 'zebra', which is no class" + WANTED,
    ),
    (
        "key,road,cra,traffic light\n",
        "the header has the column 'cra', which is no class; write 'car', if that is meant"
        + WANTED,
    ),
    ("key,road,car,car,traffic light\n", "the header has two columns of 'car'" + WANTED),
    (HEADER + "a,1,0,1\nb,1,0\n", f"line 3 has 3 {COLUMNS}"),
    (HEADER + "a,1,0,1,1\n", f"line 2 has 5 {COLUMNS}"),
    (HEADER + "a,1,0,2\n", "line 2 holds '2'" + MARK),
    (HEADER + "a,1,maybe,1\n", "line 2 holds 'maybe'" + MARK),
    (HEADER + "a,1,0,1\n\na,1,0,1\n", "line 4 names 'a' again; keep one line"),
    ("photo,tags\na,road\na,car\n", "line 3 names 'a' again; keep one line"),
    (
        "photo,tags\na,road|trafic light\n",
        "line 2 has the tag 'trafic light', which is no class; write 'traffic light', if that is "
        "meant",
    ),
    ("photo,tags\na,road zebra\n", "line 2 has the tag 'road zebra', which is no class"),
]


@pytest.mark.parametrize(("text", "sentence"), REFUSED)
def test_a_mistake_in_the_file_is_named_with_its_line(
    tmp_path: Path, text: str, sentence: str
) -> None:
    path = tmp_path / "x.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=re.escape("x.csv")) as caught:
        read_label_file(path, CLASSES)
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
    with pytest.raises(ValueError, match=r"x\.csv: not readable as CSV \(.*\); (check|save)"):
        read_label_file(path, CLASSES)


PIECES = st.sampled_from(["key", *CLASSES, ",", "\n", "\r", '"', "0", "1", ",1", HEADER, "\ufeff"])


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(PIECES | st.text(max_size=2), max_size=30).map("".join), st.binary(max_size=2))
def test_random_text_raises_nothing_but_value_errors(
    tmp_path: Path, text: str, rest: bytes
) -> None:
    (tmp_path / "x.csv").write_bytes(text.encode("utf-8", "surrogatepass") + rest)
    with contextlib.suppress(ValueError):
        labels = read_label_file(tmp_path / "x.csv", CLASSES)
        assert all(row.shape == (3,) for row in labels.values())


def test_json_lists_the_classes_of_each_photo(tmp_path: Path) -> None:
    content = {"train/a": ["traffic light", "road"], "train/b": []}
    (tmp_path / "x.json").write_text(json.dumps(content), "utf-8-sig")
    labels = read_label_file(tmp_path / "x.json", CLASSES)
    assert {key: row.tolist() for key, row in labels.items()} == {
        "train/a": [True, False, True],
        "train/b": [False, False, False],
    }


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "not readable as JSON"),
        ("[]", "must be an object"),
        ('{"a": ["cra"]}', "'a' must have a list of classes"),
        ('{"a": "road"}', "'a' must have a list of classes"),
        ('{"a": [], "a": []}', "names 'a' again"),
    ],
)
def test_a_mistake_in_json_is_named(tmp_path: Path, text: str, found: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=rf"x\.json: .*{re.escape(found)}"):
        read_label_file(tmp_path / "x.json", CLASSES)


ROW = np.array([True, False, False])


def test_labels_of_an_unknown_photo_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x\.csv") as caught:
        match_keys({"train/a": ROW, "other": ROW}, ["train/a"], Path("x.csv"))
    sentence = (
        "x.csv: labels 'other', and no photo of the data set is named so (they are named like "
        "'train/a'); correct the name, or remove it"
    )
    assert str(caught.value) == sentence


def test_a_photo_that_is_not_there_is_named_with_its_line_and_the_name_that_is_near(
    tmp_path: Path,
) -> None:
    path = tmp_path / "x.csv"
    path.write_text("photo,tags\nIMG_1234.jpg,road\nIMG_1253.jpg,car\n")
    with pytest.raises(ValueError, match=r": line 3 labels 'IMG_1253\.jpg'.*'IMG_1235' meant"):
        match_keys(read_label_file(path, CLASSES), ["train/IMG_1234", "train/IMG_1235"], path)


def test_names_are_the_same_however_a_system_writes_them() -> None:
    keys = ["train/Stra\u00dfe bei M\u00fcnchen", "train/trip/b.png"]
    labels = {"Stra\u00dfe bei Mu\u0308nchen.JPG ": ROW, "C:\\photos\\trip\\b.png": ~ROW}
    assert list(match_keys(labels, keys, Path("x.csv"))) == keys


def test_labels_named_as_the_authors_do_are_those_of_the_photos_of_that_name() -> None:
    labels = {"ulm/ulm_1": ROW, "bonn/bonn_2": ~ROW, "berlin/berlin_3": ROW}
    found = match_keys(labels, ["train/ulm_1", "val/bonn_2"], Path("x.npy"))
    assert {key: row.tolist() for key, row in found.items()} == {
        "train/ulm_1": ROW.tolist(),
        "val/bonn_2": (~ROW).tolist(),
    }


def test_labels_of_another_data_set_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x\.npy: labels 'b', and no photo .* is named so"):
        match_keys({"b": ROW}, ["train/a"], Path("x.npy"))


@pytest.mark.parametrize(
    "written",
    [
        "train/trip/a",
        "trip/a.jpg",
        "a.JPG",
        "a",
        "train/trip/a.png",
        "./trip/a.jpg",
        "C:/photos/trip/a.jpg",
    ],
)
def test_a_photo_is_named_by_any_end_of_its_path(written: str) -> None:
    found = match_keys({written: ROW}, ["train/trip/a", "train/b"], Path("x.csv"))
    assert list(found) == ["train/trip/a"]


def test_labels_that_fit_two_photos_or_one_photo_twice_are_refused() -> None:
    with pytest.raises(ValueError, match=r"x\.csv: 'a' is ambiguous: it matches"):
        match_keys({"a": ROW}, ["train/x/a", "train/y/a"], Path("x.csv"))
    with pytest.raises(ValueError, match=r"names 'a\.jpg' and 'a', the same photo; keep one"):
        match_keys({"a.jpg": ROW, "a": ROW}, ["train/a"], Path("x.csv"))
    rows = {"x/a": ROW, "y/a": ~ROW}
    found = match_keys(rows, ["train/x/a", "train/y/a"], Path("x.csv"))
    assert [row.tolist() for row in found.values()] == [ROW.tolist(), (~ROW).tolist()]


@pytest.mark.parametrize("text", ['{"a": [1]}', '{"a": [true]}', '{"a": [null]}', '{"a": [["1"]]}'])
def test_json_of_anything_but_names_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "x.json").write_text(text)
    with pytest.raises(ValueError, match=r"x\.json: 'a' must have a list of classes"):
        read_label_file(tmp_path / "x.json", ["0", "1", "True", "None"])


def test_json_of_many_brackets_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[" * 200_000)
    with pytest.raises(ValueError, match=r"x\.json: not readable as JSON"):
        read_label_file(tmp_path / "x.json", ["road"])


def test_the_line_of_a_mistake_counts_excels_first_line(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("sep=;\nphoto;tags\na;road\nb;tre\n")
    with pytest.raises(ValueError, match="line 4 has the tag 'tre'"):
        read_label_file(tmp_path / "x.csv", CLASSES)


@pytest.mark.parametrize("name", ["x.CSV", "x.tsv", "x.JSON"])
def test_endings_and_classes_may_have_other_capitals(tmp_path: Path, name: str) -> None:
    table = {"x.CSV": "photo,tags\na,ROAD\n", "x.tsv": "photo\ttags\na\tRoad\n"}
    (tmp_path / name).write_text(table.get(name, '{"a": ["Road "]}'))
    labels = read_label_file(tmp_path / name, CLASSES)
    assert labels["a"].tolist() == [True, False, False]


@pytest.mark.parametrize("written", ["valid/a.jpg", "Validation\\a.jpg", "photos/images/Val/a"])
def test_a_photo_may_be_named_by_its_folder_of_a_split(written: str) -> None:
    keys = ["train/a", "val/a"]
    assert list(match_keys({written: ROW}, keys, Path("x.csv"))) == ["val/a"]
    assert list(match_keys({"Train/a.jpg": ROW}, keys, Path("x.csv"))) == ["train/a"]


def test_a_whole_key_decides_over_the_end_of_another() -> None:
    keys = ["train/a", "train/train/a"]
    assert list(match_keys({"train/a": ROW}, keys, Path("x.csv"))) == ["train/a"]
