"""Curves of a training run."""

import csv
import json
from pathlib import Path

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


def record(directory: Path, steps: list[dict[str, float]]) -> Path:
    curves = Curves(directory / "curves", directory / "speed")
    for metrics in steps:
        curves.log_step(metrics)
    return directory / "curves"


def test_each_metric_is_a_curve_over_the_steps_and_speed_is_kept_apart(tmp_path):
    curves = record(tmp_path, STEPS)
    total = rows(curves / "plots" / "metrics" / "total.tsv")
    assert [(int(row["step"]), float(row["total"])) for row in total] == [(10, 2.5), (20, 1.5)]
    last = json.loads((curves / "metrics.json").read_text())
    assert (last["lr"], "images_per_s" in last) == (0.02, False)
    speed = rows(tmp_path / "speed" / "plots" / "metrics" / "images_per_s.tsv")
    assert [float(row["images_per_s"]) for row in speed] == [7, 8]


def test_runs_of_equal_metrics_leave_equal_bytes_whatever_their_speed(tmp_path):
    slower = [metrics | {"images_per_s": 1.0} for metrics in STEPS]
    replayed = [{k: v for k, v in STEPS[0].items() if k != "images_per_s"}, STEPS[1]]
    first = files(record(tmp_path / "a", STEPS))
    assert files(record(tmp_path / "b", slower)) == first
    assert files(record(tmp_path / "c", replayed)) == first
