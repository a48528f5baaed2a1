"""Distillation from photos of mixed sizes; settings that do not fit fail before CLIP runs."""

from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.helpers.small_photos import scene
from tests.helpers.tiny_run import prepare_folder, run_stage

SIZES = [(128, 64), (96, 80), (64, 128), (300, 40), (70, 66), (33, 17)]
SHORT = {"distillation.steps": 2, "distillation.batch_size": 4, "segmenter.encoder_weights": "clip"}


def learned(folder: Path, changes: dict[str, Any]) -> Any:
    """The stage on photos of many sizes."""
    root = folder / "mine"
    (root / "images").mkdir(parents=True)
    (root / "classes.csv").write_text("class\nroad\ncar\nsky\n")
    rows = []
    for number, size in enumerate(SIZES):
        scene(*size).save(root / f"images/{number}.png")
        rows.append(f"{number}.png,1,1,0\n")
    (root / "image_labels.csv").write_text(f"key,road,car,sky\n{''.join(rows)}")
    prepare_folder(folder, {"dataset.name": "folder", "dataset.root": "mine"} | SHORT | changes)
    assert run_stage("prepare").exit_code == 0
    return run_stage("encoder")


def test_photos_of_mixed_sizes_are_accepted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = learned(tmp_path, {})
    assert result.exit_code == 0, result.output
    weights = load_file(tmp_path / "models/encoder.safetensors")
    assert all(weight.isfinite().all() for weight in weights.values())


def test_crops_that_do_not_fit_are_refused_before_clip_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    result = learned(tmp_path, {"views.crop": [64, 126]})
    assert result.exit_code == 2
    assert "views.crop must be multiples of the encoder's stride 8" in result.output
    assert "CLIP features" not in caplog.text
