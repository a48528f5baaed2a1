"""Curves and pictures of a training run."""

import csv
import json
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from pipeline.training.curves import Curves

STEPS = [
    {"step": 10.0, "total": 2.5, "lr": 0.01, "images_per_s": 7.0},
    {"step": 20.0, "total": 1.5, "lr": 0.02, "images_per_s": 8.0},
]


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as handle:
        return list(csv.DictReader(handle, delimiter="\t"))


def files(directory: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(directory)): file.read_bytes()
        for file in sorted(directory.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # not in a repository of its own


def record(directory: Path, steps: list[dict[str, float]]) -> Path:
    curves = Curves(directory / "curves", directory / "speed")
    for figures in steps:
        curves.log_step(figures)
    curves.log_picture("preview/000020", Image.new("RGB", (4, 3), (1, 2, 3)))
    curves.close()
    return directory / "curves"


def test_each_figure_is_a_curve_over_the_steps(tmp_path):
    curves = record(tmp_path, STEPS)
    total = rows(curves / "plots" / "metrics" / "total.tsv")
    assert [(int(row["step"]), float(row["total"])) for row in total] == [(10, 2.5), (20, 1.5)]
    assert json.loads((curves / "metrics.json").read_text())["lr"] == 0.02


def test_speed_stands_apart_from_what_is_compared(tmp_path):
    curves = record(tmp_path, STEPS)
    assert not [name for name in files(curves) if "images_per_s" in name]
    assert "images_per_s" not in (curves / "metrics.json").read_text()
    speed = rows(tmp_path / "speed" / "plots" / "metrics" / "images_per_s.tsv")
    assert [float(row["images_per_s"]) for row in speed] == [7, 8]


def test_runs_of_equal_figures_leave_equal_bytes_whatever_their_speed(tmp_path):
    slower = [figures | {"images_per_s": 1.0} for figures in STEPS]
    replayed = [{k: v for k, v in STEPS[0].items() if k != "images_per_s"}, STEPS[1]]
    first = files(record(tmp_path / "a", STEPS))
    assert files(record(tmp_path / "b", slower)) == first
    assert files(record(tmp_path / "c", replayed)) == first


def test_pictures_are_kept_as_they_are(tmp_path):
    curves = record(tmp_path, STEPS)
    with Image.open(curves / "plots" / "images" / "preview" / "000020.png") as picture:
        assert picture.size == (4, 3)
        assert picture.getpixel((0, 0)) == (1, 2, 3)


@pytest.mark.parametrize("commands", [[], ["init"], ["init", "--bare", ".git"]], ids=str)
def test_no_repository_is_needed_and_none_is_changed(tmp_path, monkeypatch, commands):
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))  # as in a stage that DVC runs
    if commands:
        subprocess.run(["git", *commands], cwd=tmp_path, check=True, capture_output=True)
    there = files(tmp_path)
    record(tmp_path / "made", STEPS)
    shutil.rmtree(tmp_path / "made")
    assert files(tmp_path) == there
