"""CARB: the authors' numbers, the laws, the edges."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from numpy.lib.npyio import NpzFile
from torch import Tensor

from pipeline.carb import CarbLoss, CarbTerms, split_by_consistency
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.views import Box

GOLDEN = Path(__file__).parent / "golden"
CASES = ["main", "tallcrop", "ignore"]


def run_golden(data: NpzFile) -> list[tuple[CarbTerms, Tensor, Tensor]]:
    """Terms, queue and gradient of each step of a golden file."""
    loss = CarbLoss(
        tau=0.0,
        warmup_steps=int(data["warmup_iter"]),
        base=float(data["base_coeff"]),
        queue_size=int(data["queue_size"]),
    )
    labels = torch.from_numpy(data["img_label"]).bool()
    height, width = (int(side) for side in data["patch_size"])
    steps = []
    loss.step = int(data["iter_counter"][0]) - 1
    for step in range(len(data["seg_logits"])):
        low = torch.from_numpy(data["seg_logits"][step]).requires_grad_()
        masks = torch.from_numpy(data["clip_global"][step]).long()
        logits = F.interpolate(low, masks.shape[-2:], mode="bilinear", align_corners=False)
        box = Box(int(data["hpos"][step]), int(data["wpos"][step]), height, width)
        local = torch.from_numpy(data["clip_local"][step]).long()
        terms = loss(logits, masks, local, [box] * len(low), labels)
        terms.total.backward()
        steps.append((terms, loss.recent.clone(), low.grad))
    return steps


@pytest.mark.parametrize("case", CASES)
def test_terms_weight_total_and_gradient_equal_the_authors(case: str) -> None:
    data = np.load(GOLDEN / f"carb_loss_{case}.npz")
    for step, (terms, _, grad) in enumerate(run_golden(data)):
        parts = [terms.reliable, terms.noisy, terms.local_reliable, terms.local_noisy]
        if not data["post_warmup"][step]:
            parts = [terms.reliable, terms.local_reliable]
        found = [float(part.detach()) for part in parts]
        np.testing.assert_allclose(found, data["parts"][step][: len(found)], rtol=1e-5)
        if data["post_warmup"][step]:
            np.testing.assert_allclose(float(terms.weight), data["coeff"][step], rtol=1e-5)
        np.testing.assert_allclose(float(terms.total.detach()), data["total"][step], rtol=1e-5)
        np.testing.assert_allclose(grad, data["grad"][step], atol=1e-7)


@pytest.mark.parametrize("case", CASES)
def test_queue_holds_the_authors_last_terms(case: str) -> None:
    data = np.load(GOLDEN / f"carb_loss_{case}.npz")
    for step, (_, recent, _) in enumerate(run_golden(data)):
        for row, name in enumerate(["queue_and", "queue_vit"]):
            pushed = np.sort(data[name][step][data[name][step] != 0])
            ours = np.sort(recent[row][~recent[row].isnan()].numpy())
            np.testing.assert_allclose(ours, pushed[~np.isnan(pushed)], rtol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_regions_equal_the_authors(case: str) -> None:
    data = np.load(GOLDEN / f"carb_loss_{case}.npz")
    labels = torch.from_numpy(data["img_label"]).bool()
    for step in np.flatnonzero(data["post_warmup"]):
        masks = torch.from_numpy(data["clip_global"][step]).long()
        low = torch.from_numpy(data["seg_logits"][step])
        logits = F.interpolate(low, masks.shape[-2:], mode="bilinear", align_corners=False)
        reliable, noisy = split_by_consistency(logits, masks, labels, tau=0.0)
        assert np.array_equal(reliable, data["label_and"][step] != IGNORE_INDEX)
        assert np.array_equal(noisy, data["label_vit"][step] != IGNORE_INDEX)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor, list[Box], Tensor]:
    """Two 6x8 photos of 4 classes with some ignored pixels and 3x4 windows."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 6, 8, generator=generator, dtype=torch.float64)
    labels = torch.tensor([[1, 1, 0, 1], [1, 0, 1, 1]]).bool()
    scores = torch.rand(2, 4, 6, 8, generator=generator).masked_fill(~labels[:, :, None, None], -1)
    masks = scores.argmax(1)
    masks[0, 0] = IGNORE_INDEX
    local = masks[:, 2:5, 3:7].clone()
    local[1, 0, 0] = IGNORE_INDEX
    return logits, masks, local, [Box(2, 3, 3, 4)] * 2, labels


def test_absent_class_never_wins_the_vote() -> None:
    logits = torch.tensor([-1.0, -2.0, 5.0])[None, :, None, None]
    labels = torch.tensor([[True, True, False]])
    reliable, _ = split_by_consistency(logits, torch.zeros(1, 1, 1).long(), labels, tau=0.0)
    assert reliable.all()


def test_resumed_loss_continues_exactly(batch) -> None:
    first = CarbLoss(tau=0.0, warmup_steps=2)
    for _ in range(3):
        first(*batch)
    second = CarbLoss(tau=0.0, warmup_steps=2)
    second.load_state_dict(first.state_dict())
    assert second.step == 3
    assert torch.equal(first(*batch).total, second(*batch).total)


def test_evaluation_neither_counts_nor_learns(batch) -> None:
    loss = CarbLoss(tau=0.0, warmup_steps=0).eval()
    before = loss.recent.clone()
    loss(*batch)
    assert loss.step == 0
    assert torch.equal(loss.recent.isnan(), before.isnan())


def test_class_weights_weigh_each_mean() -> None:
    logits = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).T[None, :, None, :]  # [1, 2, 1, 2]
    masks = torch.tensor([[[0, 0]]])
    labels = torch.ones(1, 2, dtype=torch.bool)
    weights = torch.tensor([3.0, 1.0])
    loss = CarbLoss(tau=0.0, warmup_steps=9, class_weights=weights)
    terms = loss(logits, masks, masks, [Box(0, 0, 1, 2)], labels)
    assert float(terms.reliable) == pytest.approx(float(F.cross_entropy(logits, masks)))


def test_wrong_mask_size_is_named(batch) -> None:
    logits, masks, local, boxes, labels = batch
    with pytest.raises(ValueError, match="global_masks must be \\(6, 8\\)"):
        CarbLoss(tau=0.0, warmup_steps=0)(logits, masks[:, 1:], local, boxes, labels)
    with pytest.raises(ValueError, match="local_masks must be \\(3, 4\\)"):
        CarbLoss(tau=0.0, warmup_steps=0)(logits, masks, local[:, 1:], boxes, labels)


def test_tau_out_of_range_is_refused() -> None:
    with pytest.raises(ValueError, match=r"carb.tau must be between 0 and 1, got 1.5"):
        CarbLoss(tau=1.5, warmup_steps=0)
