"""The loss of a training step, and what it weighs."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import pipeline.training.losses
from pipeline.carb import CarbLoss
from pipeline.training.augment import IMAGENET_MEAN, IMAGENET_STD, normalise
from pipeline.training.crops import Batch, SampledLogits, TrainingPhoto
from pipeline.training.losses import (
    class_frequency,
    class_weights,
    loss_of,
)
from pipeline.views import Box


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, 3, 3, padding=1)


def test_normalise_is_imagenet_s():
    images = torch.randint(0, 256, (2, 3, 4, 5), dtype=torch.uint8)
    out = normalise(images)
    for channel in range(3):
        wanted = (images[:, channel] / 255 - IMAGENET_MEAN[channel]) / IMAGENET_STD[channel]
        torch.testing.assert_close(out[:, channel], wanted)
    assert out.dtype == torch.float32
    assert out.is_contiguous(memory_format=torch.channels_last)


def test_class_frequency_counted_by_hand(store_of):
    def votes(*classes: int) -> np.ndarray:
        """Logits ``[3, 1, w]``: 2 for the class, then 1 for the next one."""
        logits = np.zeros((3, 1, len(classes)))
        for place, index in enumerate(classes):
            logits[index, 0, place] = 2
            logits[(index + 1) % 3, 0, place] = 1
        return logits

    global_level = {"a": votes(0, 0, 0, 1), "b": votes(2, 2)}
    store = store_of(
        {"global": global_level, "local": {"a": votes(0, 1), "b": votes(1, 0)}},
        {"a": (8, 32), "b": (8, 16)},
    )
    photos = [
        TrainingPhoto("a", Path("a.png"), (8, 32), np.array([True, True, True])),
        TrainingPhoto("b", Path("b.png"), (8, 16), np.array([True, True, False])),
    ]
    # class 2 is not in b: its cells go to class 0. a: 3/4, 1/4; b: 1
    assert class_frequency(store, photos, ["global"]).tolist() == [7 / 8, 1 / 8, 0]
    # and half each of two more grids
    assert class_frequency(store, photos, store.levels).tolist() == [11 / 16, 5 / 16, 0]


@pytest.mark.parametrize(("most", "counted"), [(7, range(7)), (6, [0, 2, 4, 6]), (3, [0, 3, 6])])
def test_of_many_photos_some_are_counted(store_of, monkeypatch, most, counted):
    rng, size = np.random.default_rng(0), (16, 16)
    logits = {f"{number}": rng.normal(size=(3, 2, 2)) for number in range(7)}
    store = store_of({"global": logits}, dict.fromkeys(logits, size))
    photos = [TrainingPhoto(key, Path(key), size, np.ones(3, bool)) for key in logits]
    wanted = class_frequency(store, [photos[number] for number in counted], ["global"])
    monkeypatch.setattr(pipeline.training.losses, "COUNTED_PHOTOS", most)
    assert torch.equal(class_frequency(store, photos, ["global"]), wanted)


def test_class_weights_are_a_power_of_the_frequency():
    frequency = torch.tensor([0.25, 0.75, 0.0], dtype=torch.float64)
    weights = class_weights(frequency, 0.5)
    torch.testing.assert_close(weights, torch.tensor([2.0, 0.75**-0.5, 100.0]))  # 0 counts as 1e-4
    assert class_weights(frequency, 0) is None


def grid_cut(logits: Tensor) -> SampledLogits:
    """Grids read at their own cells."""
    rows, columns = (
        torch.arange(side).float().expand(len(logits), -1) for side in logits.shape[2:]
    )
    return SampledLogits(logits, rows, columns)


def drawn_batch(*, local: bool) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        images=torch.randint(0, 256, (2, 3, 8, 8), generator=generator, dtype=torch.uint8),
        image_labels=torch.tensor([[True, True, False], [True, True, True]]),
        global_logits=grid_cut(torch.randn(2, 3, 8, 8, generator=generator)),
        local_logits=grid_cut(torch.randn(2, 3, 4, 4, generator=generator)) if local else None,
        local_boxes=[Box(1, 2, 4, 4), Box(4, 0, 4, 4)] if local else [],
        keys=["a", "b"],
    )


def test_the_plain_loss_is_cross_entropy_of_both_views_on_the_same_logits():
    batch, model = drawn_batch(local=True), net()
    terms = loss_of(batch, model, CarbLoss(tau=0, warmup_steps=9))
    logits = model(normalise(batch.images))
    masks = batch.global_logits.grids.clone()
    masks[0, 2] = -torch.inf  # class 2 is not in the first photo
    torch.testing.assert_close(terms.reliable, F.cross_entropy(logits, masks.argmax(1)))
    windows = torch.stack([logits[0, :, 1:5, 2:6], logits[1, :, 4:8, 0:4]])
    masks = batch.local_logits.grids.clone()
    masks[0, 2] = -torch.inf
    torch.testing.assert_close(terms.local_reliable, F.cross_entropy(windows, masks.argmax(1)))
    torch.testing.assert_close(terms.total, terms.reliable + terms.local_reliable)


@pytest.mark.parametrize("warmup_steps", [0, 9])
def test_without_a_local_view_its_terms_are_0_and_the_others_unchanged(warmup_steps):
    with_local, without = (
        loss_of(drawn_batch(local=local), net(), CarbLoss(tau=0, warmup_steps=warmup_steps))
        for local in (True, False)
    )
    assert without.local_reliable == without.local_noisy == 0
    assert without.reliable == with_local.reliable
    assert without.noisy == with_local.noisy
    torch.testing.assert_close(without.total, without.reliable + without.weight * without.noisy)
