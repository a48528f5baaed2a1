"""``labels.npy`` of CARB's authors: read as written, nothing in it run."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.datasets.label_files import read_label_file

OFFICIAL = Path(__file__).parents[3] / "shared" / "official-labels"
CLASSES = ["road", "car", "traffic light"]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, bool])
def test_the_authors_format_is_a_pickled_dict_of_arrays(tmp_path: Path, dtype: type) -> None:
    np.save(tmp_path / "x.npy", {"a": np.array([1, 0, 1], dtype)}, allow_pickle=True)  # type: ignore[arg-type]
    labels = read_label_file(tmp_path / "x.npy", CLASSES)
    assert labels["a"].tolist() == [True, False, True]
    assert labels["a"].dtype == bool


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (
            {"a": np.ones(2)},
            r"'a' must have 0 or 1 for each of the 3 classes, got an array of \(2,\)",
        ),
        ({"a": np.full(3, 2)}, "'a' must have 0 or 1"),
        ({"a": "road"}, "'a' must have 0 or 1"),
        ({}, "must hold a dict"),
        ([1], "must hold a dict"),
    ],
)
def test_another_content_of_npy_is_named(tmp_path: Path, content: Any, found: str) -> None:
    array = np.empty((), dtype=object)
    array[()] = content
    np.save(tmp_path / "x.npy", array, allow_pickle=True)
    with pytest.raises(ValueError, match=rf"x\.npy: {found}"):
        read_label_file(tmp_path / "x.npy", CLASSES)


@pytest.mark.parametrize(
    "content", [b"", b"\x93NUMPY", b"hello", b"\x93NUMPY\x01\x00v\x00{'descr'"]
)
def test_a_damaged_npy_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x.npy").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.npy: not readable as labels\.npy"):
        read_label_file(tmp_path / "x.npy", CLASSES)


def test_an_array_of_numbers_is_no_file_of_labels(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.ones(3))
    with pytest.raises(ValueError, match=r"not a pickled dict"):
        read_label_file(tmp_path / "x.npy", CLASSES)


def test_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"x\.txt: image-level labels must be a \.csv, \.tsv,"):
        read_label_file(tmp_path / "x.txt", CLASSES)


@pytest.mark.skipif(not OFFICIAL.is_dir(), reason="the authors' labels are not on this machine")
@pytest.mark.parametrize(
    ("name", "photos", "classes"),
    [("camvid", 701, 11), ("cityscapes", 3475, 19), ("wilddash2", 4256, 25)],
)
def test_the_authors_files_are_read(name: str, photos: int, classes: int) -> None:
    labels = read_label_file(OFFICIAL / f"{name}.npy", [f"class {n}" for n in range(classes)])
    assert len(labels) == photos
    assert all(row.shape == (classes,) for row in labels.values())
