"""Photos without image-level labels, human masks or logits are left out and logged."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.evaluation.selection import warn_unseen_classes
from pipeline.metrics import confusion
from tests.helpers.tiny_run import prepare_folder, run_stage, write_params

OWN = {"dataset.name": "folder", "dataset.root": "own", "train.steps": 2, "carb.warmup_steps": 1}


def photo(name: str) -> None:
    path = Path("own/images", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(name)).integers(0, 256, (8, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((128, 64)).save(path)


def mask(name: str) -> None:
    path = Path("own/masks", name)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.arange(64 * 128, dtype=np.uint8).reshape(64, 128) // 128).save(path)


def done(stage: str, caplog: pytest.LogCaptureFixture) -> str:
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="carb"):
        result = run_stage(stage)
    assert result.exit_code == 0, f"{stage}: {result.output} {result.exception!r}"
    return caplog.text


def test_photos_without_labels_masks_or_logits_are_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("Train/a.jpg", "Train/b.jpg", "valid/v.jpg", "valid/w.jpg"):
        photo(name)
    mask("valid/v.png")
    Path("own/classes.txt").write_text("road\ncar\nsky\n")
    Path("own/Labels.csv").write_text("photo,tags\na,road|car\nb,sky\nvalid/w.jpg,road\n")
    prepare_folder(tmp_path, OWN)
    text = done("prepare", caplog)
    assert "image labels: from own/Labels.csv" in text
    assert "no line for 1 validation photos, their pseudo-masks are not scored: val/v" in text
    assert "1 of 2 val photos have no mask: val/w" in text
    for stage in ("pseudo", "encoder", "train"):
        done(stage, caplog)
    Path("list.txt").write_text("valid\\v.jpg\nval/w\n")  # none with both a mask and a label
    write_params(tmp_path, OWN | {"eval.photos": "list.txt"})
    text = done("eval_pseudo", caplog)
    assert "a human mask but no image-level label; pseudo-masks not scored (1): val/v" in text
    assert json.loads(Path("results/pseudo_masks.json").read_text()) == {}
    assert "segmenter on 1 photos" in done("eval", caplog)
    photo("valid/x.jpg")  # newer than the store
    mask("valid/x.png")
    mask("Train/a.png")
    with Path("data/image_labels.csv").open("a") as labels:
        labels.write("val/x,1,1,0\n")
    write_params(tmp_path, OWN)
    lacks = "masks.zarr: no logits, so pseudo-masks not scored, run `dvc repro pseudo` to add"
    assert f"{lacks} them (1): val/x" in done("eval_pseudo", caplog)
    assert list(json.loads(Path("results/pseudo_masks.json").read_text())) == ["pseudo-masks train"]
    text = done("eval", caplog)
    assert f"{lacks} them (1): val/x" in text
    assert "segmenter on 2 photos" in text


def test_classes_in_no_mask_are_named(caplog: pytest.LogCaptureFixture) -> None:
    binary = np.array([[0, 255, 255]])
    warn_unseen_classes(confusion(np.array([[1, 1, 0]]), binary, 2), ["road", "car"])
    assert "human masks: none contains car; masks hold class indices from 0, and 255" in caplog.text
    caplog.clear()
    warn_unseen_classes(confusion(np.array([[1, 255]]), np.array([[0, 1]]), 2), ["road", "car"])
    assert not caplog.text
