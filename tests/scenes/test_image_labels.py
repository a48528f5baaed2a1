"""The pipeline's own image_labels.csv: comes back as written; anything else is refused."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.scenes.image_labels import read_image_labels, write_image_labels

CLASSES = ["road", "car", "traffic light"]
HEADER = "key,road,car,traffic light\n"
KEYS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r"))


def test_the_file_is_a_table_of_0_and_1(tmp_path: Path) -> None:
    labels = {
        "train/a": np.array([True, False, True]),
        'val/"b", c': np.array([False, True, False]),
    }
    write_image_labels(tmp_path / "x.csv", labels, CLASSES)
    text = (tmp_path / "x.csv").read_bytes()
    assert text == b'key,road,car,traffic light\ntrain/a,1,0,1\n"val/""b"", c",0,1,0\n'


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.dictionaries(KEYS, st.lists(st.booleans(), min_size=3, max_size=3), max_size=4))
def test_any_key_comes_back(tmp_path: Path, rows: dict[str, list[bool]]) -> None:
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
        (b"photo,road,car,traffic light\na,1,0,0\n", "its columns are not"),
        (HEADER.encode() + b"a,1,0\n", "a line is damaged or a key occurs twice"),
        (HEADER.encode() + b"a,1,0,2\n", "a line is damaged"),
        (HEADER.encode() + b"\n", "a line is damaged"),
        (HEADER.encode() + b"a,1,0,0\na,1,0,0\n", "a key occurs twice"),
        (HEADER.encode() + b"stra\xdfe,1,0,0\n", "not readable as CSV"),
        (HEADER.encode() + b"a" * 200_000, "not readable as CSV"),
    ],
)
def test_what_prepare_did_not_write_is_refused_in_one_sentence(
    tmp_path: Path, content: bytes | None, found: str
) -> None:
    if content is not None:
        (tmp_path / "x.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"x\.csv: .*{found}.*; run `dvc repro prepare`$"):
        read_image_labels(tmp_path / "x.csv", CLASSES)
