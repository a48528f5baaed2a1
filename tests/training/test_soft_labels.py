"""Soft pseudo-masks: their loss, its gradient and the balance of the classes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.carb import CarbLoss
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.training.batch_loss import BatchLoss, dice_loss
from pipeline.training.soft_labels import SoftLabels, posterior
from pipeline.views import Box
from tests.training.test_batch_loss import drawn_batch, net, normalise

WARM = {"tau": 0, "warmup_steps": 9}


def drawn(seed: int, classes: int = 3) -> Tensor:
    return torch.randn(2, classes, 6, 8, generator=torch.Generator().manual_seed(seed))


def test_the_gradient_is_that_of_cross_entropy_with_the_posterior():
    logits, labels = drawn(0).requires_grad_(), drawn(1).log_softmax(1)
    masks, present = labels.argmax(1), torch.ones(2, 3, dtype=torch.bool)
    no_window, boxes = torch.full((2, 1, 1), IGNORE_INDEX), [Box(0, 0, 1, 1)] * 2
    weights = torch.tensor([1.0, 3.0, 0.5])
    for class_weights, shares in ((None, torch.ones(3)), (weights, weights)):
        loss = CarbLoss(**WARM, class_weights=class_weights)
        found = loss(logits, masks, no_window, boxes, present, (labels, None)).total
        probs = posterior(labels, logits)
        mass = (probs * shares[:, None, None]).sum(1, keepdim=True)
        wanted = -(mass * probs * logits.log_softmax(1)).sum() / mass.sum()
        gradients = [torch.autograd.grad(value, logits)[0] for value in (found, wanted)]
        torch.testing.assert_close(*gradients)
    assert found >= 0


def test_at_a_low_temperature_labels_are_hard():
    batch, model, soft = drawn_batch(local=True), net(), SoftLabels(3, temperature=1e-4).eval()
    hard, found = (
        BatchLoss(CarbLoss(**WARM), 1.0, soft_labels=labels)(batch, model)
        for labels in (None, soft)
    )
    torch.testing.assert_close(found.reliable, hard.reliable)
    torch.testing.assert_close(found.local_reliable, hard.local_reliable)


def test_both_views_are_soft_and_dice_takes_the_posterior():
    batch, model = drawn_batch(local=True), net()
    soft = [SoftLabels(3, temperature=1.0) for _ in range(3)]
    plain, with_dice = (
        BatchLoss(CarbLoss(**WARM), weight, soft_labels=labels)(batch, model)
        for weight, labels in zip((0.0, 0.5), soft[:2], strict=True)
    )
    logits = model(normalise(batch.images))
    clip = batch.global_logits.present(batch.image_labels)
    soft[2].update(clip, logits, clip.argmax(1))
    labels = soft[2](clip)
    joint = (labels + logits.log_softmax(1)).logsumexp(1)
    torch.testing.assert_close(plain.reliable, -joint.mean())
    assert plain.local_reliable > 0
    dice = dice_loss(logits, clip.argmax(1), posterior(labels, logits))
    torch.testing.assert_close(with_dice.total - plain.total, 0.5 * dice)
    hard = F.one_hot(clip.argmax(1), 3).permute(0, 3, 1, 2).float()
    assert hard.sum((0, 2, 3)).min() < 50  # such a class counts less in soft labels
    many, repeated = hard.repeat(1, 1, 8, 8), logits.repeat(1, 1, 8, 8)
    masks = clip.argmax(1).repeat(1, 8, 8)
    torch.testing.assert_close(dice_loss(repeated, masks, many), dice_loss(repeated, masks))


def test_a_class_keeps_its_share_of_the_pseudo_masks():
    clip = 2 * drawn(3)
    clip[:, 2] -= 1.5  # a rare class, of which the segmenter sees nothing
    logits = drawn(4)
    logits[:, 2] -= 4
    masks = clip.argmax(1)
    wanted = (masks == 2).float().mean()
    balance = SoftLabels(3, temperature=1.0)
    alone = posterior((clip / 1.0).log_softmax(1), logits)[:, 2].mean()
    for _ in range(300):
        balance.update(clip, logits, masks)
    labels = balance(clip)
    assert alone < 0.2 * wanted
    torch.testing.assert_close(posterior(labels, logits)[:, 2].mean(), wanted, rtol=0.1, atol=0)
    before = {name: value.clone() for name, value in balance.state_dict().items()}
    balance(clip)
    local = drawn_batch(local=True)
    BatchLoss(CarbLoss(**WARM), soft_labels=balance.eval())(local, net())
    assert all(torch.equal(before[name], value) for name, value in balance.state_dict().items())


def test_absent_classes_stay_impossible():
    clip = drawn(5)
    clip[0, 1] = -torch.inf
    logits = drawn(6).requires_grad_()
    labels = SoftLabels(3, temperature=0.5)(clip)
    loss = -(labels + logits.log_softmax(1)).logsumexp(1).mean()
    (gradient,) = torch.autograd.grad(loss, logits)
    assert gradient.isfinite().all()
    assert posterior(labels, logits)[0, 1].max() == 0
