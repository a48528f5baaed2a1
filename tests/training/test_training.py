"""Training on cached pseudo-masks."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from torch import nn

from pipeline.config.params import Params
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.stop import Interrupted, graceful_shutdown
from pipeline.system.tensor_files import load_tensors
from pipeline.training.crops import TrainingPhoto
from pipeline.training.fit import _loader
from pipeline.training.losses import class_frequency, make_loss
from pipeline.training.optimizer import learning_rate
from tests.helpers.small_training import (
    CLASSES,
    BreaksAtStep,
    Data,
    assert_equal_weights,
    changed,
    run,
    without_speed,
)

SIZE = (32, 64)


@pytest.fixture
def small(params: Params) -> Params:
    """Fourteen steps on small crops; CARB acts from the fifth on."""
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


def test_the_loss_is_as_the_parameters_say(data, small):
    carb = make_loss(changed(small, carb={"tau": 0.5, "weight": 0.1}), data.store, data.photos)
    assert (carb.tau, carb.warmup_steps, carb.weight) == (0.5, 4, 0.1)
    assert carb.recent.shape == (2, 3)
    both = class_frequency(data.store, data.photos, ["global", "local"])
    torch.testing.assert_close(carb.class_weights, both.pow(-0.5).float())
    near = changed(small, train={"local_term": False})
    one = class_frequency(data.store, data.photos, ["global"])
    torch.testing.assert_close(
        make_loss(near, data.store, data.photos).class_weights, one.pow(-0.5).float()
    )
    plain = changed(small, train={"class_weight_power": 0.0})
    assert make_loss(plain, data.store, data.photos).class_weights is None
    off = make_loss(changed(small, carb={"enabled": False}), data.store, data.photos)
    off.step = small.train.steps
    assert off.warming_up


@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_a_run_stopped_and_resumed_ends_with_the_weights_of_an_undisturbed_one(
    data, small, tmp_path, optimizer
):
    params = changed(small, train={"optimizer": optimizer})
    whole = run(data, params, tmp_path / "none")
    assert [each["step"] for each in whole.figures] == [10]
    checkpoint = tmp_path / "work" / "checkpoint.safetensors"
    params = changed(params, train={"checkpoint_every": 11, "preview_every": 13})
    with pytest.raises(KeyboardInterrupt):
        run(data, params, checkpoint, stop_at=13)
    resumed = run(data, params, checkpoint)
    assert_equal_weights(resumed.model, whole.model)
    assert resumed.figures == without_speed(whole.figures)  # the tenth step, told again
    assert not resumed.model.training


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_run_resumes_on_a_gpu(data, small, tmp_path):
    params = changed(small, train={"checkpoint_every": 4, "preview_every": 6})
    with pytest.raises(KeyboardInterrupt):
        run(data, params, tmp_path / "state", stop_at=6, accelerator="cuda")
    resumed = run(data, params, tmp_path / "state", accelerator="cuda")
    assert resumed.shown == [6, 12]
    assert [each["step"] for each in resumed.figures] == [10]


def test_resuming_a_finished_run_trains_no_further(data, small, tmp_path):
    params = changed(small, train={"steps": 4, "checkpoint_every": 2})
    first = run(data, params, tmp_path / "state")
    again = run(data, params, tmp_path / "state")
    assert_equal_weights(again.model, first.model)


def test_pictures_and_checkpoints_do_not_change_the_run(data, small, tmp_path):
    params = changed(small, train={"steps": 6})
    plain = run(data, params, tmp_path / "none")
    busy = changed(params, train={"preview_every": 1, "checkpoint_every": 1})
    observed = run(data, busy, tmp_path / "state")
    assert observed.shown == [1, 2, 3, 4, 5, 6]
    assert_equal_weights(observed.model, plain.model)


def test_the_run_is_the_same_with_a_worker(data, small, tmp_path):
    params = changed(small, train={"steps": 3})
    alone = run(data, params, tmp_path / "none")
    helped = run(data, changed(params, train={"workers": 1}), tmp_path / "none")
    assert_equal_weights(helped.model, alone.model)


def test_the_seed_decides_what_is_learned(data, small, tmp_path):
    params = changed(small, train={"steps": 2})
    runs = [run(data, params.model_copy(update={"seed": s}), tmp_path / "none") for s in (0, 0, 1)]
    weights = [each.model.last.weight for each in runs]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


def test_every_tenth_step_tells_its_figures(data, small, tmp_path):
    (figures,) = run(data, small, tmp_path / "none").figures
    assert figures["step"] == 10
    local = figures["local_reliable"] + figures["weight"] * figures["local_noisy"]
    wanted = figures["reliable"] + figures["weight"] * figures["noisy"] + local
    assert figures["total"] == pytest.approx(wanted, rel=1e-5)
    assert figures["local_reliable"] > 0
    assert 0 < figures["reliable_fraction"] < 1
    assert figures["images_per_s"] > 0
    assert figures["lr"] == learning_rate(9, small.train)  # the first update is number 0


def test_local_term_false_trains_without_local_terms(data, small, tmp_path):
    params = changed(small, train={"steps": 10, "local_term": False})
    (figures,) = run(data, params, tmp_path / "none").figures
    assert figures["local_reliable"] == figures["local_noisy"] == 0
    assert figures["reliable"] > 0
    assert figures["noisy"] > 0


def test_a_loss_that_is_not_finite_stops_the_run_and_leaves_the_checkpoint(data, small, tmp_path):
    checkpoint = tmp_path / "state"
    params = changed(small, train={"checkpoint_every": 1})
    message = (
        r"step 3: the loss is not finite \((total, reliable.*)\) on train/\d, train/\d; "
        r"lower params.yaml: train.lr, or look at these photos; the last checkpoint stays"
    )
    with pytest.raises(ValueError, match=message):
        run(data, params, checkpoint, model=BreaksAtStep(3))
    with safe_open(checkpoint, framework="pt") as handle:
        assert int(handle.get_tensor("carb._extra_state")) == 2
    whole = run(data, params, tmp_path / "other")
    assert_equal_weights(run(data, params, checkpoint).model, whole.model)


def test_a_run_that_is_asked_to_stop_keeps_the_step_in_hand(data, small, tmp_path):
    whole = run(data, small, tmp_path / "none")
    params = changed(small, train={"preview_every": 5})

    def ask(step: int, model: nn.Module) -> None:
        os.kill(os.getpid(), signal.SIGTERM)

    with graceful_shutdown(), pytest.raises(Interrupted, match="SIGTERM, train 5/14; what is"):
        run(data, params, tmp_path / "state", show=ask)
    resumed = run(data, small, tmp_path / "state")
    assert_equal_weights(resumed.model, whole.model)


def test_a_damaged_checkpoint_is_named_and_training_starts_anew(data, small, tmp_path, caplog):
    params = changed(small, train={"steps": 6, "checkpoint_every": 4})
    whole = run(data, params, tmp_path / "state")
    content = bytearray((tmp_path / "state").read_bytes())
    content[-1] ^= 1
    (tmp_path / "state").write_bytes(content)
    again = run(data, params, tmp_path / "state")
    assert "state: not a whole checkpoint (" in caplog.text
    assert "training starts anew" in caplog.text
    assert_equal_weights(again.model, whole.model)


def test_weights_that_are_no_numbers_never_reach_a_checkpoint(data, small, tmp_path):
    params = changed(small, train={"checkpoint_every": 1, "lr": 1e30, "schedule": "poly"})
    with pytest.raises(ValueError, match=r"step \d: the (loss is|weights '.*' are) not finite"):
        run(data, params, tmp_path / "state")
    if (tmp_path / "state").exists():
        tensors, _ = load_tensors(tmp_path / "state", require_digest=True)
        learned = [value for name, value in tensors.items() if name.startswith("model.")]
        assert all(value.isfinite().all() for value in learned)


def test_a_batch_that_the_devices_cannot_share_evenly_is_refused(data, small):
    three = SimpleNamespace(world_size=3, global_rank=0, device=torch.device("cpu"))
    message = (
        r"params.yaml: train.batch_size must be a multiple of the number of devices \(3\), got 2"
    )
    with pytest.raises(ValueError, match=message):
        _loader(three, data.store, data.photos, small, start=0)
