"""The ablation command: a real run of two settings, and its table by hand."""

import csv
import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.ablation import app
from bench.report import write_report
from bench.settings import LABEL_NOISE, NO_PARAMETERS, TABLES, recipe_changes, write_changed
from pipeline.config.params import load_params
from pipeline.datasets import open_dataset
from pipeline.datasets.base import read_scene_mask
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.store.reader import PseudoMaskStore
from tests.helpers import PAPER, ROOT
from tests.helpers.tiny_run import SHORT, run_stage, write_params


def in_this_process(line: list[str], **_: Any) -> SimpleNamespace:
    """Run a stage without the seconds in which a new process imports torch."""
    assert line[1] == "-m"
    result = run_stage(line[2].removeprefix("stages."), *line[3:])
    assert result.exit_code == 0, f"{line}: {result.output} {result.exception!r}"
    return SimpleNamespace(returncode=result.exit_code)


def test_a_setting_is_trained_and_scored_once(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("bench.ablation.subprocess.run", in_this_process)
    caplog.set_level("INFO", "carb")
    setting = {
        "train.local_term": False,
        "clip.fused": {"size": [64, 128], "stride": 2, "radius": 2},
        LABEL_NOISE: {"false_alarm": 1.0},
    }
    monkeypatch.setitem(TABLES, "one", {"fused view": setting})
    write_params(run_copy, SHORT)
    Path("second.txt").write_text("val/00001\n")
    command = ["--table", "one", "--seeds", "1", "--group", "second=second.txt"]
    first = CliRunner().invoke(app, command)
    assert first.exit_code == 0, first.output
    table, folder = Path("scratch/ablation/one"), Path("scratch/ablation/one/fusedview")
    assert not load_params(folder / "0/params.yaml").train.local_term
    labels = (folder / "labels.csv").read_text().splitlines()[1:]
    assert all(set(line.split(",")[1:]) == {"1"} for line in labels)
    metrics = json.loads((folder / "0/eval/metrics.json").read_text())
    (row,) = csv.DictReader((table / "runs.csv").read_text().splitlines())
    assert row["setting"] == "fused view"
    assert float(row["mIoU"]) == pytest.approx(100 * metrics["mIoU"], abs=0.005)
    assert {"iou.png", "miou.png", "weight.png", "table.md"} <= {p.name for p in table.iterdir()}
    assert PseudoMaskStore.open(folder / "masks.zarr").global_level == "fused"
    assert "CLIP: 0 views to compute, 12 in the cache" in caplog.text
    assert "pseudo-masks, fused" in (table / "table.md").read_text()
    monkeypatch.setattr("bench.ablation.train_and_score", None)  # finished runs are kept
    assert CliRunner().invoke(app, ["--table", "one", "--seeds", "1"]).exit_code == 0
    write_params(run_copy, SHORT | {"views.flip": 0.25})
    assert CliRunner().invoke(app, ["--table", "one", "--seeds", "1"]).exit_code == 2


def test_recipe_changes_are_the_parameters_that_differ(tmp_path: Path) -> None:
    changes = recipe_changes(ROOT / "params.yaml", PAPER)
    assert set(changes) == {
        "clip.levels",
        "clip.window_share",
        "clip.fused",
        "train.local_term",
        "train.batch_size",
        "train.class_weight_power",
        "train.dice_weight",
        "train.presence_weight",
        "eval.flip",
        "eval.edge_radius",
    }
    write_changed(PAPER, tmp_path / "best.yaml", changes)
    best, wanted = (load_params(path) for path in (tmp_path / "best.yaml", ROOT / "params.yaml"))
    assert best == wanted
    assert not recipe_changes(tmp_path / "best.yaml", ROOT / "params.yaml")


def test_a_recipe_with_another_encoder_is_refused(tmp_path: Path) -> None:
    base, recipe = tmp_path / "base.yaml", tmp_path / "recipe.yaml"
    write_changed(PAPER, base, {"segmenter.encoder_weights": "clip"})
    write_changed(base, recipe, {"clip.dense": "sclip"})
    with pytest.raises(ValueError, match=r"recipe\.yaml: changes clip\.dense, which"):
        recipe_changes(recipe, base)


def test_an_unknown_table_and_missing_inputs_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for arguments in (["--table", "none"], []):
        assert CliRunner().invoke(app, arguments).exit_code == 2
    assert not list(tmp_path.iterdir())


def test_every_setting_changes_parameters_that_exist(tmp_path: Path) -> None:
    for settings in TABLES.values():
        for changes in settings.values():
            named = {name: value for name, value in changes.items() if name not in NO_PARAMETERS}
            write_changed(PAPER, tmp_path / "params.yaml", named)
            load_params(tmp_path / "params.yaml")


def test_the_table_holds_means_and_deviations_over_seeds(tmp_path: Path) -> None:
    folders = {tmp_path / "a": "A", tmp_path / "b": "B"}
    for folder, mious in zip(folders, [(0.2, 0.4), (0.5, 0.5)], strict=True):
        for seed, miou in enumerate(mious):
            place = folder / str(seed)
            (place / "eval").mkdir(parents=True)
            metrics = {
                "mIoU": miou,
                "pixel accuracy": 0.5,
                "regions": {},
                "IoU": {"road": miou, "car": None},
            }
            (place / "eval/metrics.json").write_text(json.dumps(metrics))
            (place / "groups.json").write_text(json.dumps({"dusk": miou / 2}))
            (place / "seconds.json").write_text('{"train": 90}')
            curves = place / "curves/plots/metrics"
            curves.mkdir(parents=True)
            for name in ("weight", "reliable_fraction"):
                (curves / f"{name}.tsv").write_text(f"step\t{name}\n10\t1.0\n20\t0.5\n")
    pseudo = tmp_path / "pseudo.json"
    pseudo.write_text('{"pseudo-masks val": {"global": 0.125}}')
    write_report(tmp_path / "report", folders, {"A": pseudo, "B": pseudo}, seeds=2)
    table = (tmp_path / "report/table.md").read_text()
    assert "| CLIP pseudo-masks, global | 12.5 | | |" in table
    assert "| A | 30.0 ± 14.1 | 20.0 40.0 | 50.0 ± 0.0 |" in table
    assert "| mIoU | dusk | training, min |" in table
    assert "| A | 15.0 ± 7.1 | 1.5 ± 0.0 |" in table
    assert "| road | 30.0 ± 14.1 | 50.0 ± 0.0 |" in table
    assert "| car | - | - |" in table
    assert table.count("CLIP pseudo-masks") == 1


def test_the_bound_is_the_same_training_on_human_masks(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.ablation.subprocess.run", in_this_process)
    write_params(run_copy, SHORT)
    result = CliRunner().invoke(app, ["--table", "bound", "--seeds", "1"])
    assert result.exit_code == 0, result.output
    table = Path("scratch/ablation/bound/table.md").read_text()
    assert re.search(r"as it is: \d+ % of the bound", table)
    new = PseudoMaskStore.open(Path("scratch/ablation/bound/humanmasks/relabelled.zarr"))
    dataset = open_dataset("demo", "data/demo")
    for scene in dataset.scenes("train"):
        mask = read_scene_mask(scene, dataset.read_mask)
        found = new.read(scene.key, "global").argmax(axis=0)
        assert found.shape == mask.shape
        labelled = mask != IGNORE_INDEX
        assert (found[labelled] == mask[labelled]).all()


def test_a_setting_that_changes_training_gets_labels_of_its_own(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bench.ablation.subprocess.run", in_this_process)
    rounds = {"relabel.rounds": 1}
    settings = {"other": rounds | {"views.flip": 0.25}, "same": {"carb.enabled": False}}
    monkeypatch.setitem(TABLES, "two", settings)
    write_params(run_copy, SHORT)
    result = CliRunner().invoke(app, ["--table", "two", "--seeds", "1"])
    assert result.exit_code == 0, result.output
    out = Path("scratch/ablation/two")
    assert PseudoMaskStore.open(out / "other/relabelled.zarr").levels == ["global"]
    assert not (out / "same/relabelled.zarr").exists()
