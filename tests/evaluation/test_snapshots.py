"""Snapshots: kept by train, scored and chosen by eval, opened by the other commands."""

import csv
import json
from pathlib import Path

import pytest

from pipeline.evaluation.snapshots import Snapshot, choose, described
from pipeline.segmenter.saved import load_segmenter
from tests.helpers.tiny_run import SHORT, run_stage, write_params


def test_the_last_or_the_best_is_chosen_and_of_equal_ones_the_latest() -> None:
    scores = {100: 0.25, 200: 0.5, 300: 0.5, 400: 0.125}
    found = [Snapshot(step, Path("m", str(step)), miou) for step, miou in scores.items()]
    assert (choose(found, "last").step, choose(found, "best").step) == (400, 300)
    assert "the last of 4 networks, step 400" in described(found, "last")["choice"]
    about = described(found, "best")
    assert (about["weights"], about["step"], about["folder"]) == ("best", 300, "m/300")
    assert "chosen on the photos that score it (the evaluation split)" in about["choice"]


def test_eval_scores_the_snapshots_and_names_the_one_that_it_evaluates(
    run_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "carb")
    last = Path("models/segmenter/model.safetensors").read_bytes()
    write_params(run_copy, SHORT | {"train.snapshots": 2, "eval.weights": "best"})
    for stage in ("train", "eval", "report"):
        assert run_stage(stage).exit_code == 0
    assert Path("models/segmenter/model.safetensors").read_bytes() == last
    with Path("results/eval/snapshots.csv").open() as handle:
        scores = {int(row["step"]): float(row["mIoU"]) for row in csv.DictReader(handle)}
    assert list(scores) == [3, 7, 10]
    best = max(scores, key=lambda step: (scores[step], step))
    folder = "models/segmenter" + ("" if best == 10 else f"/snapshots/{best:06d}")
    metrics = json.loads(Path("results/eval/metrics.json").read_text())
    assert metrics["mIoU"] == pytest.approx(scores[best], abs=1e-12)
    assert (metrics["network"]["step"], metrics["network"]["folder"]) == (best, folder)
    assert metrics["network"]["sha256"] == load_segmenter(folder).digest
    summary = json.loads(Path("results/segmenter.json").read_text())
    assert (summary["weights"], summary["step"]) == ("best", best)
    assert "(the evaluation split), which makes its mIoU optimistic" in caplog.text
    page = Path("results/report.html").read_text("utf-8")
    assert "(the evaluation split), which makes its mIoU optimistic" in page
    assert "Curve of the mIoU of the kept networks by step" in page
    assert "- Steps: snapshot after 3 of 10" in Path(
        "models/segmenter/snapshots/000003/README.md"
    ).read_text("utf-8")


def test_without_snapshots_the_last_network_is_evaluated_and_a_line_says_so(
    run_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = Path("results/eval/metrics.json").read_bytes()
    write_params(run_copy, SHORT | {"eval.weights": "best"})
    assert run_stage("eval").exit_code == 0
    assert "eval.weights: best needs train.snapshots of 1 or more; the last" in caplog.text
    assert Path("results/eval/metrics.json").read_bytes() == before
    miou = json.loads(before)["mIoU"]
    assert Path("results/eval/snapshots.csv").read_text().split() == ["step,mIoU", f"10,{miou}"]
