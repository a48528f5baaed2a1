"""The loss of a training step: class weights, both views, the Dice loss."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from segmentation_models_pytorch.losses import DiceLoss
from torch import Tensor, nn

import pipeline.training.batch_loss
from pipeline.carb import CarbLoss
from pipeline.config.segmenter import NormalisationParams
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.training.augment import NORMALISATIONS, normalisation_of, normalise
from pipeline.training.batch_loss import (
    BatchLoss,
    class_frequency,
    class_weights,
    dice_loss,
    presence_loss,
)
from pipeline.training.crops import Batch, SampledLogits, TrainingPhoto
from pipeline.views import Box


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Conv2d(3, 3, 3, padding=1)


def test_pixels_are_normalised_as_the_encoder_s_weights_expect():
    pixel = torch.tensor([10, 127, 255], dtype=torch.uint8)[None, :, None, None]
    by_hand = {
        "imagenet": [(10 / 255 - 0.485) / 0.229, (127 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225],
        "half": [10 / 127.5 - 1, 127 / 127.5 - 1, 1.0],
        "lite": [(10 - 127) / 128, 0.0, (255 - 127) / 128],
    }
    assert by_hand.keys() == NORMALISATIONS.keys()
    for name, wanted in by_hand.items():
        found = normalise(pixel, normalisation_of(name))[0, :, 0, 0]
        torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-5, atol=1e-6)
    asked = NormalisationParams(mean=[0.4, 0.5, 0.6], std=[0.1, 0.2, 0.3])
    wanted = torch.tensor([(10 / 255 - 0.4) / 0.1, (127 / 255 - 0.5) / 0.2, (1 - 0.6) / 0.3])
    torch.testing.assert_close(normalise(pixel, normalisation_of(asked))[0, :, 0, 0], wanted)
    assert normalise(pixel).is_contiguous(memory_format=torch.channels_last)


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


def test_of_many_images_some_are_counted(store_of, monkeypatch):
    rng, size = np.random.default_rng(0), (16, 16)
    logits = {f"{number}": rng.normal(size=(3, 2, 2)) for number in range(7)}
    store = store_of({"global": logits}, dict.fromkeys(logits, size))
    photos = [TrainingPhoto(key, Path(key), size, np.ones(3, bool)) for key in logits]
    wanted = class_frequency(store, photos[::3], ["global"])
    monkeypatch.setattr(pipeline.training.batch_loss, "COUNTED_IMAGES", 3)
    assert torch.equal(class_frequency(store, photos, ["global"]), wanted)


def test_class_weights_are_a_power_of_the_frequency():
    frequency = torch.tensor([0.25, 0.75, 0.0], dtype=torch.float64)
    weights = class_weights(frequency, 0.5)
    torch.testing.assert_close(weights, torch.tensor([2.0, 0.75**-0.5, 100.0]))  # 0 counts as 1e-4


def sampled(logits: Tensor) -> SampledLogits:
    """Grids sampled at their own cells."""
    rows, columns = (
        torch.arange(side).float().expand(len(logits), -1) for side in logits.shape[2:]
    )
    return SampledLogits(logits, rows, columns)


def drawn_batch(*, local: bool) -> Batch:
    generator = torch.Generator().manual_seed(0)
    return Batch(
        images=torch.randint(0, 256, (2, 3, 8, 8), generator=generator, dtype=torch.uint8),
        image_labels=torch.tensor([[True, True, False], [True, True, True]]),
        global_logits=sampled(torch.randn(2, 3, 8, 8, generator=generator)),
        local_logits=sampled(torch.randn(2, 3, 4, 4, generator=generator)) if local else None,
        local_boxes=[Box(1, 2, 4, 4), Box(4, 0, 4, 4)] if local else [],
        keys=["a", "b"],
    )


def test_the_plain_loss_is_cross_entropy_of_both_views_on_the_same_logits():
    batch, model, own = drawn_batch(local=True), net(), NORMALISATIONS["half"]
    terms = BatchLoss(CarbLoss(tau=0, warmup_steps=9), normalisation=own)(batch, model)
    logits = model(normalise(batch.images, own))
    masks = batch.global_logits.grids.clone()
    masks[0, 2] = -torch.inf  # class 2 is not in the first image
    torch.testing.assert_close(terms.reliable, F.cross_entropy(logits, masks.argmax(1)))
    windows = torch.stack([logits[0, :, 1:5, 2:6], logits[1, :, 4:8, 0:4]])
    local_masks = batch.local_logits.grids.clone()
    local_masks[0, 2] = -torch.inf
    local = F.cross_entropy(windows, local_masks.argmax(1))
    torch.testing.assert_close(terms.local_reliable, local)
    torch.testing.assert_close(terms.total, terms.reliable + terms.local_reliable)
    with_dice = BatchLoss(CarbLoss(tau=0, warmup_steps=9), 0.5, own)(batch, model)
    added = 0.5 * dice_loss(logits, masks.argmax(1))
    torch.testing.assert_close(with_dice.total, terms.total + added)
    carb = CarbLoss(tau=0, warmup_steps=9)
    with_presence = BatchLoss(carb, normalisation=own, presence_weight=0.1)(batch, model)
    added = 0.1 * presence_loss(logits, batch.image_labels)
    torch.testing.assert_close(with_presence.total, terms.total + added)


@pytest.mark.parametrize("warmup_steps", [0, 9])
def test_without_a_local_view_its_terms_are_0_and_the_others_unchanged(warmup_steps):
    with_local, without = (
        BatchLoss(CarbLoss(tau=0, warmup_steps=warmup_steps))(drawn_batch(local=local), net())
        for local in (True, False)
    )
    assert without.local_reliable == without.local_noisy == 0
    assert without.reliable == with_local.reliable
    assert without.noisy == with_local.noisy
    torch.testing.assert_close(without.total, without.reliable + without.weight * without.noisy)


def scene(classes: int = 4) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(3, classes, 6, 8, generator=generator)
    masks = torch.randint(0, classes, (3, 6, 8), generator=generator)
    masks[:, :2] = IGNORE_INDEX
    return logits, masks


def test_dice_is_the_library_s_with_the_mean_over_present_classes():
    logits, masks = scene()
    logits.requires_grad_()
    masks[masks == 2] = 0
    # Theirs halves numerator and denominator, and averages over all four classes.
    theirs = DiceLoss("multiclass", smooth=0.5, ignore_index=IGNORE_INDEX)(logits, masks)
    ours = dice_loss(logits, masks)
    torch.testing.assert_close(ours, theirs * 4 / 3)
    (wanted,) = torch.autograd.grad(theirs * 4 / 3, logits)
    (found,) = torch.autograd.grad(ours, logits)
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-7)


def test_dice_of_ignored_pixels_is_0_without_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = dice_loss(logits, torch.full((1, 4, 4), IGNORE_INDEX))
    assert float(loss.detach()) == 0
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def test_presence_is_the_binary_cross_entropy_of_pooled_probabilities():
    logits = 3 * torch.randn(2, 3, 4, 5, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor([[True, True, False], [False, True, True]])
    pooled = logits.softmax(1).pow(5).mean((2, 3)).pow(1 / 5)  # of log-probabilities: a power mean
    wanted = F.binary_cross_entropy(pooled, labels.float())
    torch.testing.assert_close(presence_loss(logits, labels), wanted)


def test_presence_of_sure_pixels_is_finite():
    logits = torch.tensor([200.0, -200.0])[None, :, None, None].repeat(1, 1, 2, 2).requires_grad_()
    for labels, least in (
        (torch.tensor([[True, False]]), 0.0),
        (torch.tensor([[False, True]]), 5.0),
    ):
        loss = presence_loss(logits, labels)
        (gradient,) = torch.autograd.grad(loss, logits)
        assert loss >= least
        assert torch.isfinite(loss)
        assert gradient.isfinite().all()
