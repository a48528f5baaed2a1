"""The training loop: resuming, stopping, logging, previews."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn

from pipeline.carb import CarbLoss
from pipeline.config.params import Params
from pipeline.segmenter.inference import Segmenter, predict_logits
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.stop import Interrupted, graceful_shutdown
from pipeline.training.batch_loss import class_frequency, make_loss
from pipeline.training.checkpoint import seed_step
from pipeline.training.crops import TrainingPhoto
from pipeline.training.optimizer import learning_rate
from pipeline.training.previews import preview_images, write_previews
from tests.helpers.small_training import (
    CLASSES,
    BreaksAtStep,
    Data,
    Net,
    assert_equal_weights,
    changed,
    run,
    without_speed,
)

SIZE = (32, 64)
ON_GPU = pytest.param("cuda", marks=pytest.mark.gpu)


@pytest.fixture
def small(params: Params) -> Params:
    """Fourteen steps on small crops; CARB starts at the fifth."""
    return changed(
        params,
        views={
            "base_size": SIZE,
            "scale": (1.0, 1.5),
            "crop": (32, 32),
            "local_window": (16, 16),
            "flip": 0.5,
        },
        carb={"tau": 0.0, "warmup_steps": 4, "base": 1.0, "queue_size": 3, "weight": None},
        train={
            "steps": 14,
            "batch_size": 2,
            "local_term": True,
            "optimizer": "adamw",
            "schedule": "one_cycle",
            "lr": 1e-2,
            "class_weight_power": 0.5,
            "precision": "32-true",
            "workers": 0,
            "checkpoint_every": 100,
            "preview_every": 100,
        },
    )


@pytest.fixture
def data(tmp_path: Path, store_of: Callable[..., PseudoMaskStore]) -> Data:
    rng = np.random.default_rng(0)
    photos = []
    for index in range(5):
        file = tmp_path / f"{index}.png"
        Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(file)
        labels = np.array([True, index % 2 == 0, True])
        photos.append(TrainingPhoto(f"train/{index}", file, SIZE, labels))
    logits = {
        level: {photo.key: rng.normal(size=(CLASSES, *grid)) for photo in photos}
        for level, grid in {"global": (4, 8), "local": (8, 16)}.items()
    }
    return Data(photos, store_of(logits, dict.fromkeys((p.key for p in photos), SIZE)))


def test_the_parameters_set_the_loss(data, small):
    def loss(**sections: dict[str, Any]) -> CarbLoss:
        params = changed(small, **sections)
        return make_loss(data.store, data.photos, carb=params.carb, train=params.train).carb

    carb = loss(carb={"tau": 0.5, "weight": 0.1})
    assert (carb.tau, carb.warmup_steps, carb.weight) == (0.5, 4, 0.1)
    assert carb.recent.shape == (2, 3)
    both = class_frequency(data.store, data.photos, ["global", "local"])
    torch.testing.assert_close(carb.class_weights, both.pow(-0.5).float())
    one = class_frequency(data.store, data.photos, ["global"])
    near = loss(train={"local_term": False})
    torch.testing.assert_close(near.class_weights, one.pow(-0.5).float())
    assert loss(train={"class_weight_power": 0.0}).class_weights is None
    off = loss(carb={"enabled": False})
    off.step = small.train.steps
    assert off.warming_up


@pytest.mark.parametrize("device", ["cpu", ON_GPU])
@pytest.mark.parametrize(
    "train", [{"optimizer": "adamw"}, {"optimizer": "sgd"}, {"label_temperature": 0.5}]
)
def test_a_resumed_run_ends_with_the_weights_of_an_uninterrupted_one(
    data, small, tmp_path, train, device
):
    params = changed(small, train=train)
    whole = run(data, params, tmp_path / "none", accelerator=device)
    assert [each["step"] for each in whole.metrics] == [10]
    checkpoint = tmp_path / "work" / "checkpoint.safetensors"
    params = changed(params, train={"checkpoint_every": 11, "preview_every": 13})
    with pytest.raises(KeyboardInterrupt):
        run(data, params, checkpoint, stop_at=13, accelerator=device)
    resumed = run(data, params, checkpoint, accelerator=device)
    if device == "cpu":  # a GPU's sums are not repeatable
        assert_equal_weights(resumed.model, whole.model)
    assert resumed.metrics[0]["step"] == 10  # logged again
    assert resumed.metrics == without_speed(whole.metrics) or device == "cuda"
    assert not resumed.model.training


@pytest.mark.parametrize(
    ("device", "precision"),
    [
        ("cpu", "bf16-mixed"),
        pytest.param("cuda", "bf16-mixed", marks=pytest.mark.gpu),
        pytest.param("cuda", "32-true", marks=pytest.mark.gpu),
    ],
)
def test_bfloat16_and_a_gpu_train_as_float32_on_the_cpu_does(
    data, small, tmp_path, device, precision
):
    def last_metrics(precision: str, device: str) -> dict[str, float]:
        model = Net()
        model.drop.p = 0.0  # a GPU draws other masks
        params = changed(small, train={"steps": 10, "precision": precision, "workers": 1})
        outcome = run(data, params, tmp_path / "none", model=model, accelerator=device)
        assert {value.dtype for value in model.parameters()} == {torch.float32}
        return outcome.metrics[0]

    wanted, found = last_metrics("32-true", "cpu"), last_metrics(precision, device)
    for name in ("total", "reliable", "local_reliable"):
        assert found[name] == pytest.approx(wanted[name], rel=0.05), name
    assert precision == "32-true" or found["total"] != wanted["total"]


@pytest.mark.gpu
def test_random_numbers_of_a_gpu_follow_seed_and_step():
    drawn = []
    for step in (1, 2, 1):
        seed_step(0, step)
        drawn.append(torch.rand(9, device="cuda").tolist())
    assert drawn[0] == drawn[2] != drawn[1]


def test_a_non_finite_loss_stops_the_run_and_keeps_the_checkpoint(data, small, tmp_path):
    checkpoint = tmp_path / "state"
    params = changed(small, train={"checkpoint_every": 1})
    message = (
        r"step 3: the loss is not finite \((total, reliable.*)\) on train/\d, train/\d; "
        r"lower params.yaml: train.lr, or check these images; the last checkpoint is kept"
    )
    with pytest.raises(ValueError, match=message):
        run(data, params, checkpoint, model=BreaksAtStep(3))
    assert int(load_file(checkpoint)["carb._extra_state"]) == 2
    whole = run(data, params, tmp_path / "other")
    assert_equal_weights(run(data, params, checkpoint).model, whole.model)


def test_sigterm_saves_the_current_step(data, small, tmp_path):
    whole = run(data, small, tmp_path / "none")
    params = changed(small, train={"preview_every": 5})

    def send_sigterm(step: int, model: nn.Module) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with (
        graceful_shutdown(),
        pytest.raises(Interrupted, match="SIGTERM, train 5/14; finished work is"),
    ):
        run(data, params, tmp_path / "state", preview=send_sigterm)
    resumed = run(data, small, tmp_path / "state")
    assert_equal_weights(resumed.model, whole.model)


def test_training_starts_anew_from_a_damaged_checkpoint(data, small, tmp_path, caplog):
    params = changed(small, train={"steps": 6, "checkpoint_every": 4})
    whole = run(data, params, tmp_path / "state")
    content = bytearray((tmp_path / "state").read_bytes())
    content[-1] ^= 1
    (tmp_path / "state").write_bytes(content)
    again = run(data, params, tmp_path / "state")
    assert "state: not a complete checkpoint (" in caplog.text
    assert "training starts anew" in caplog.text
    assert_equal_weights(again.model, whole.model)


def test_a_batch_size_that_devices_cannot_share_is_refused(data, small, tmp_path):
    three = SimpleNamespace(world_size=3, global_rank=0)
    message = (
        r"params.yaml: train.batch_size must be a multiple of the number of devices \(3\), got 2"
    )
    with pytest.raises(ValueError, match=message):
        run(data, small, tmp_path / "none", fabric=three)


def test_workers_previews_snapshots_and_checkpoints_do_not_change_the_run(data, small, tmp_path):
    params = changed(small, train={"steps": 6})
    plain = run(data, params, tmp_path / "none")
    busy = changed(
        params, train={"preview_every": 1, "checkpoint_every": 1, "workers": 1, "snapshots": 2}
    )
    observed = run(data, busy, tmp_path / "state")
    assert observed.previews == [1, 2, 3, 4, 5, 6]
    assert observed.snapshots == [2, 4]
    assert_equal_weights(observed.model, plain.model)


@pytest.mark.parametrize("local", [True, False])
def test_every_tenth_step_logs_its_metrics(data, small, tmp_path, local):
    params = changed(small, train={"local_term": local})
    (metrics,) = run(data, params, tmp_path / "none").metrics
    assert metrics["step"] == 10
    local_terms = metrics["local_reliable"] + metrics["weight"] * metrics["local_noisy"]
    wanted = metrics["reliable"] + metrics["weight"] * metrics["noisy"] + local_terms
    assert metrics["total"] == pytest.approx(wanted, rel=1e-5)
    assert (local_terms > 0) is local
    assert 0 < metrics["reliable_fraction"] < 1
    assert metrics["images_per_s"] > 0
    assert metrics["lr"] == learning_rate(9, params.train)  # the first update is number 0


def test_the_progress_line_shows_the_last_logged_step(data, small, tmp_path, caplog):
    caplog.set_level("INFO", "carb")
    (last,) = run(data, small, tmp_path / "none").metrics
    assert f"; loss {last['total']:.3g}, lambda {last['weight']:.2g}, reliable " in caplog.text
    assert f" %, lr {last['lr']:.2g}" in caplog.text


def test_non_finite_weights_are_never_saved(data, small, tmp_path):
    params = changed(small, train={"checkpoint_every": 1, "lr": 1e30, "schedule": "poly"})
    with pytest.raises(ValueError, match=r"step \d: the (loss is|weights '.*' are) not finite"):
        run(data, params, tmp_path / "state")
    if (tmp_path / "state").exists():
        tensors = load_file(tmp_path / "state")
        assert all(v.isfinite().all() for name, v in tensors.items() if name.startswith("model."))


def test_previews_are_class_maps_with_palette_and_the_noisy_region(data, tmp_path):
    palette = np.array([[9, 8, 7], [90, 80, 70], [200, 100, 0]], np.uint8)
    images = preview_images(data.photos)
    assert [photo.key for photo in images] == ["train/0", "train/1", "train/2"]
    segmenter = Segmenter(
        Net().eval(), list("abc"), palette, (0.5,) * 3, (0.5,) * 3, SIZE, 8, extra={}
    )
    for step in (5, 10, 15, 10):  # resumed after step 5
        write_previews(tmp_path / "p", segmenter, data.store, images, step=step, tau=0.0)
    found = json.loads((tmp_path / "p" / "previews.json").read_text())
    assert (found["step"], found["classes"]) == (10, list("abc"))
    assert [earlier["step"] for earlier in found["earlier"]] == [5]
    for photo, entry in zip(images, found["images"], strict=True):
        assert entry["key"] == photo.key
        assert list(entry["maps"]) == ["global", "local", "segmenter", "noisy"]
        maps = {name: Image.open(tmp_path / "p" / file) for name, file in entry["maps"].items()}
        assert {image.mode for name, image in maps.items() if name != "noisy"} == {"P"}
        assert maps["global"].getpalette()[:9] == palette.flatten().tolist()
        values = {name: np.asarray(image) for name, image in maps.items()}
        assert all(value.shape == SIZE for value in values.values())
        present = torch.from_numpy(photo.image_labels)
        with Image.open(photo.path) as opened:
            logits = predict_logits(segmenter, [opened], SIZE)[0]
        assert np.array_equal(values["segmenter"], logits.argmax(dim=0))
        vote = logits.masked_fill(~present[:, None, None], -torch.inf).argmax(dim=0)
        assert np.array_equal(values["noisy"], 255 * (vote.numpy() != values["global"]))
