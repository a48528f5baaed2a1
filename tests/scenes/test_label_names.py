"""Files of labels, classes and photos named in other capitals, or by the folder of a split."""

from pathlib import Path

import numpy as np
import pytest

from pipeline.datasets.label_files import match_keys, read_label_file

CLASSES, ROW = ["road", "car", "traffic light"], np.array([True, False, True])


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
