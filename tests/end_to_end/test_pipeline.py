"""The whole pipeline from the command line on six drawn scenes."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from PIL import Image

from pipeline.clip.levels import level_logits
from pipeline.config.params import load_params
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.files import LIST
from pipeline.training.inputs import Inputs
from tests.helpers.tiny_run import SHORT, finished_run, run_stage, write_params

SCRATCH = "scratch"


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every output; ``scratch`` and the lists of written files are left out."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not {SCRATCH, LIST} & {*path.relative_to(folder).parts}
    }


@pytest.fixture
def here(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(finished)
    return finished


def test_a_second_run_gives_the_same_bytes(finished: Path, tmp_path: Path) -> None:
    assert digests(finished_run(tmp_path, SHORT)) == digests(finished)


def test_metrics_contain_scores_regions_and_protocol(here: Path) -> None:
    metrics = json.loads((here / "results/eval/metrics.json").read_text())
    assert 0 <= metrics["mIoU"] <= 1
    assert len(metrics["IoU"]) == 17
    assert set(metrics["regions"]) == {"reliable", "noisy"}
    assert metrics["protocol"]["image-level labels shown"] is False
    assert metrics["protocol"]["photos"] == 2
    assert metrics["protocol"]["flips, scales, windows"] == "none"
    shares = [region["share"] for region in metrics["regions"].values()]
    assert sum(shares) == pytest.approx(1)


def test_pseudo_masks_are_scored_by_split_and_level(here: Path) -> None:
    metrics = json.loads((here / "results/eval_pseudo/metrics.json").read_text())
    assert set(metrics) == {"train", "val"}
    assert set(metrics["val"]) == {"global", "local", "regions"}


def test_every_loss_term_has_a_curve_and_scratch_is_empty(here: Path) -> None:
    names = {path.stem for path in (here / "results/train/plots/metrics").glob("*.tsv")}
    terms = {"total", "reliable", "noisy", "local_reliable", "local_noisy"}
    assert names == terms | {"weight", "reliable_fraction", "lr"}
    previews = json.loads((here / "results/train/previews/previews.json").read_text())
    assert previews["step"] == load_params(here / "params.yaml").train.steps
    (speed,) = (here / "scratch/speed").iterdir()  # experiments may share the scratch folder
    assert (speed / "plots/metrics/images_per_s.tsv").is_file()
    left = {path.name for path in (here / "scratch").iterdir()}
    assert left <= {"speed", "dataset_files.json"}


def test_every_stage_writes_its_charts_and_panels(here: Path) -> None:
    pictures = {
        "prepare": {"photos", "class_frequency", "sizes"},
        "eval": {"panels_best", "panels_median", "panels_worst", "confusion", "iou"},
        "eval_pseudo": {"panels_train", "panels_val", "iou_train", "iou_val"},
    }
    for stage, names in pictures.items():
        found = list((here / "results" / stage).rglob("*.png"))
        extra = {"training_previews", "panels_unlabelled"}  # index PNGs of train, drawn
        assert {path.stem for path in found} - extra == names
        for path in found:
            with Image.open(path) as picture:
                assert 500 < picture.width <= 1500
    tables = {path.name for path in (here / "results/eval").glob("*.csv")}
    assert tables == {"per_class.csv", "regions.csv", "regions_by_class.csv", "snapshots.csv"}


def test_another_palette_changes_only_panels(
    run_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = digests(Path())
    write_params(Path(), SHORT | {"pictures.palette": "colour_blind"})
    for stage in ("pseudo", "eval", "eval_pseudo"):
        assert run_stage(stage).exit_code == 0
    assert "CLIP: 0 views to compute" in caplog.text
    after = digests(Path())
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {
        "params.yaml",
        *(name for name in before if "panels" in name or "training_previews" in name),
    }
    assert before.keys() == after.keys()


def test_store_contains_logits_of_all_classes(here: Path) -> None:
    store = PseudoMaskStore.open("data/masks.zarr")
    assert len(store.keys) == 6
    assert store.read(store.keys[0], "global").shape == (17, 8, 16)
    assert store.read(store.keys[0], "local").shape == (17, 16, 32)
    assert np.isfinite(store.read(store.keys[0], "local")).all()


def test_saved_segmenter_opens_with_plain_smp(here: Path) -> None:
    model = smp.from_pretrained("models/segmenter")
    assert model.eval()(torch.zeros(1, 3, 64, 128)).shape == (1, 17, 64, 128)


def test_folder_is_scored_by_hand(run_copy: Path) -> None:
    images, masks = "data/demo/val/images", "data/demo/val/masks"
    result = run_stage("eval", "--images", images, "--masks", masks, "--out", "scored")
    assert result.exit_code == 0, result.output
    by_hand = json.loads((run_copy / "scored/metrics.json").read_text())
    in_dag = json.loads((run_copy / "results/eval/metrics.json").read_text())
    assert by_hand["IoU"] == in_dag["IoU"]
    assert len(list((run_copy / "scored/overlays").glob("*.png"))) == 2


def test_folder_without_masks_is_predicted(run_copy: Path) -> None:
    result = run_stage("eval", "--images", "data/demo/val/images", "--out", "predicted")
    assert result.exit_code == 0, result.output
    with Image.open("predicted/masks/00000.png") as mask:
        assert mask.size == (256, 128)
        assert np.asarray(mask).max() < 17
    assert not (run_copy / "predicted/metrics.json").exists()


def test_second_pseudo_run_computes_no_clip_logits(
    run_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = digests(run_copy / "data/masks.zarr")
    assert run_stage("pseudo").exit_code == 0
    assert "CLIP: 0 views to compute" in caplog.text
    assert digests(run_copy / "data/masks.zarr") == before


def test_text_classifier_trains_and_saves_a_plain_model(run_copy: Path, tmp_path: Path) -> None:
    width = PseudoMaskStore.open(run_copy / "data/masks.zarr").text.shape[1]
    options = {"encoder_depth": 3, "decoder_channels": [16, 8, width]}
    changes = {"segmenter.classifier": "text", "segmenter.options": options, "train.steps": 2}
    write_params(tmp_path, changes)
    arguments = ["--params", str(tmp_path / "params.yaml"), "--out", str(tmp_path / "segmenter")]
    result = run_stage("train", *arguments, "--curves", str(tmp_path / "curves"))
    assert result.exit_code == 0, result.output
    saved = smp.from_pretrained(tmp_path / "segmenter").segmentation_head[0].weight
    text = PseudoMaskStore.open(run_copy / "data/masks.zarr").text
    assert np.array_equal(saved[:, :, 1, 1].detach().numpy(), text)  # of 3x3; never trained
    assert saved.count_nonzero() == np.count_nonzero(text)


def test_encoder_learns_from_clip(run_copy: Path, tmp_path: Path) -> None:
    changes = {"segmenter.encoder_weights": "clip", "distillation.steps": 3}
    write_params(tmp_path, changes | {"distillation.batch_size": 2})
    out = tmp_path / "encoder.safetensors"
    params = str(tmp_path / "params.yaml")
    result = run_stage("encoder", "--params", params, "--out", str(out))
    assert result.exit_code == 0, result.output
    assert out.read_bytes() != (run_copy / "models/encoder.safetensors").read_bytes()
    left = {path.name for path in (run_copy / "scratch").iterdir()}
    assert left <= {"speed", "dataset_files.json"}


def test_params_change_the_results_of_stages(run_copy: Path) -> None:
    write_params(Path(), {"eval.flip": True, "eval.scales": [0.5, 1.0]})
    assert run_stage("eval", "--out", "mirrored").exit_code == 0
    protocol = json.loads(Path("mirrored/metrics.json").read_text())["protocol"]
    assert protocol["flips, scales, windows"].startswith("scales 0.5, 1; also mirrored")
    seen = {}
    for switch in ({}, {"normalisation": "imagenet"}, {"activation": "quick_gelu"}):
        write_params(Path(), {f"clip.{name}": value for name, value in switch.items()})
        out = f"{next(iter(switch), 'plain')}.zarr"
        assert run_stage("pseudo", "--out", out).exit_code == 0
        seen[out] = PseudoMaskStore.open(Path(out)).read("val/00000", "global")
    assert not np.allclose(seen["plain.zarr"], seen["normalisation.zarr"], atol=1e-3)
    assert not np.array_equal(seen["plain.zarr"], seen["activation.zarr"])


@pytest.fixture
def edited(run_copy: Path) -> str:
    """A validation image that was replaced in a copy of the run."""
    photo = min(Path("data/demo/val/images").iterdir())
    with Image.open(photo) as opened:
        opened.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(photo)
    return str(photo)


def test_changed_photos_with_the_same_names_are_refused(edited: str) -> None:
    other = "'val/00000' has changed since its logits were computed (1 of {} photos"
    for stage in ("eval", "eval_pseudo"):
        result = run_stage(stage)
        assert result.exit_code == 2
        assert other.format(2) in result.output
    assert run_stage("prepare").exit_code == 0
    result = run_stage("train")
    assert result.exit_code == 2
    assert other.format(6) in result.output
    assert run_stage("pseudo").exit_code == 0
    assert run_stage("train").exit_code == 0


def test_a_photo_that_changed_since_it_was_indexed_is_not_cached(edited: str) -> None:
    result = run_stage("pseudo", "--out", "new.zarr")
    assert result.exit_code == 2
    assert f"{edited}: has changed since it was indexed; run `dvc repro`" in result.output


def test_checkpoint_is_not_resumed_when_logits_have_changed(
    run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def name() -> str:
        paths = {"index": "scenes.json", "image_labels": "image_labels.csv", "masks": "masks.zarr"}
        read = {option: Path("data", path) for option, path in paths.items()}
        settings = load_params(Path("params.yaml"))
        return Inputs.read(**read, encoder=Path("models/none"), params=settings).fingerprint

    before = name()
    assert run_stage("pseudo").exit_code == 0
    assert name() == before
    monkeypatch.setattr(
        "pipeline.clip.build_store.level_logits", lambda *seen: 2 * level_logits(*seen)
    )
    shutil.rmtree("data/masks.zarr")
    assert run_stage("pseudo").exit_code == 0
    assert name() != before
