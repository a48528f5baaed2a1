"""Error analysis of pseudo-masks: counts by hand, and the command on a real run."""

import csv
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.microscope import (
    BOUNDS,
    SIZES,
    Findings,
    app,
    by_size,
    majority,
    objects,
    removed_rows,
    size_class,
)

MASK = np.array([[0, 0, 1, 1], [0, 1, 1, 1], [1, 0, 0, 1], [1, 1, 0, 1]])


def test_objects_are_regions_whose_sides_touch() -> None:
    numbers = objects(MASK)
    assert len(np.unique(numbers)) == 4  # two of class 0, two of class 1
    assert numbers[0, 2] == numbers[3, 3] != numbers[2, 0]


def test_an_object_s_size_is_its_share_of_the_photo() -> None:
    mask = np.zeros((100, 100), int)
    mask[0, :10] = 1  # 10 of 10 000 pixels: tiny, at most 0.1 %
    mask[5, :11] = 1
    mask[20:30, 20:40] = 1  # 200: medium
    names = np.array(list(SIZES))[size_class(objects(mask))]
    found = [names[0, 0], names[5, 0], names[25, 25], names[99, 99]]
    assert found == ["tiny", "small", "medium", "large"]


def test_pixels_are_counted_by_size_and_class() -> None:
    pred = MASK.copy()
    pred[0, 0] = 1
    valid = np.ones_like(MASK, dtype=bool)
    valid[3, 3] = False
    table = by_size(MASK, pred, valid, 2)
    assert table.sum(axis=0).tolist() == [[6, 5], [9, 9]]
    assert table[3, :, 0].tolist() == [6, 9]  # each object has more than a tenth of the photo


def test_an_object_gets_the_majority_class_of_its_pixels() -> None:
    pred = np.zeros_like(MASK)
    pred[:, 2:] = 2
    chosen = majority(objects(MASK), pred, 3)
    assert (chosen[0, 2], chosen[0, 0], chosen[2, 0]) == (2, 0, 0)
    assert chosen[2, 1] == chosen[3, 2] == 2  # 1 pixel of 3 says 0


def test_the_confusions_that_labels_remove_come_first() -> None:
    without, labelled = np.array([[5, 4, 1], [0, 0, 0], [0, 0, 0]]), np.diag([5, 0, 0])
    labelled[0, 1:] = [1, 4]
    findings = Findings({("global", "no image labels"): without, ("global", "as it is"): labelled})
    rows = removed_rows(findings, "global", ["a", "b", "c"])
    assert rows[0] == {"mask": "a", "taken for": "b", "without labels": 0.4, "with labels": 0.1}
    assert (rows[-1]["taken for"], rows[-1]["with labels"]) == ("c", 0.4)


def test_the_command_writes_tables(run_copy: Path) -> None:
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 0, result.output
    found = run_copy / "scratch/microscope"
    bounds = list(csv.DictReader((found / "bounds.csv").read_text().splitlines()))
    assert [row["bound"] for row in bounds[: len(BOUNDS)]] == list(BOUNDS)
    scores = {(row["level"], row["bound"]): float(row["mIoU"]) for row in bounds}
    for level in ("global", "local"):
        assert scores[level, "best of two"] > scores[level, "as it is"]
    sizes = list(csv.DictReader((found / "sizes.csv").read_text().splitlines()))
    shares = [float(row["share of class"]) for row in sizes if row["class"] == "road"]
    assert sum(shares) == pytest.approx(2)  # of each level 1
    images = list(csv.DictReader((found / "images.csv").read_text().splitlines()))
    assert {row["image"] for row in images} == {"val/00000", "val/00001"}
    assert float(images[0]["global"]) <= float(images[1]["global"])
    assert "| global |" in (found / "summary.md").read_text()
    assert CliRunner().invoke(app, ["--split", "test"]).exit_code == 2
