"""The CARB loss against the authors' recorded values, its state, its error messages."""

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


def run_golden(data: NpzFile) -> list[tuple[CarbTerms, Tensor, Tensor, Tensor]]:
    """Terms, queue, logits and gradient of each step of a golden file."""
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
        steps.append((terms, loss.recent.clone(), logits.detach(), low.grad))
    return steps


@pytest.mark.parametrize("case", ["main", "tallcrop", "ignore"])
def test_each_step_equals_the_authors(case: str) -> None:
    """Terms, weight, total, gradient, queue and regions."""
    data = np.load(GOLDEN / f"carb_loss_{case}.npz")
    labels = torch.from_numpy(data["img_label"]).bool()
    for step, (terms, recent, logits, grad) in enumerate(run_golden(data)):
        parts = [terms.reliable, terms.noisy, terms.local_reliable, terms.local_noisy]
        if data["post_warmup"][step]:
            np.testing.assert_allclose(float(terms.weight), data["coeff"][step], rtol=1e-5)
            masks = torch.from_numpy(data["clip_global"][step]).long()
            reliable, noisy = split_by_consistency(logits, masks, labels, tau=0.0)
            assert np.array_equal(reliable, data["label_and"][step] != IGNORE_INDEX)
            assert np.array_equal(noisy, data["label_vit"][step] != IGNORE_INDEX)
        else:
            parts = [terms.reliable, terms.local_reliable]
        found = [float(part.detach()) for part in parts]
        np.testing.assert_allclose(found, data["parts"][step][: len(found)], rtol=1e-5)
        np.testing.assert_allclose(float(terms.total.detach()), data["total"][step], rtol=1e-5)
        np.testing.assert_allclose(grad, data["grad"][step], atol=1e-7)
        for row, name in enumerate(["queue_and", "queue_vit"]):
            pushed = np.sort(data[name][step][data[name][step] != 0])
            ours = np.sort(recent[row][~recent[row].isnan()].numpy())
            np.testing.assert_allclose(ours, pushed[~np.isnan(pushed)], rtol=1e-5)


@pytest.fixture
def batch() -> tuple[Tensor, Tensor, Tensor, list[Box], Tensor]:
    """Two 6x8 images of 4 classes and 3x4 windows."""
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 4, 6, 8, generator=generator, dtype=torch.float64)
    masks = torch.randint(0, 4, (2, 6, 8), generator=generator)
    labels = torch.ones(2, 4, dtype=torch.bool)
    return logits, masks, masks[:, 2:5, 3:7], [Box(2, 3, 3, 4)] * 2, labels


def test_a_restored_loss_continues_exactly(batch) -> None:
    first = CarbLoss(tau=0.0, warmup_steps=2)
    for _ in range(3):
        first(*batch)
    second = CarbLoss(tau=0.0, warmup_steps=2)
    second.load_state_dict(first.state_dict())
    assert second.step == 3
    assert torch.equal(first(*batch).total, second(*batch).total)


def test_evaluation_neither_counts_nor_learns(batch) -> None:
    loss = CarbLoss(tau=0.0, warmup_steps=0).eval()
    loss(*batch)
    assert loss.step == 0
    assert loss.recent.isnan().all()


def test_wrong_sizes_and_tau_are_named(batch) -> None:
    logits, masks, local, boxes, labels = batch
    with pytest.raises(ValueError, match=r"global_masks must be \(6, 8\)"):
        CarbLoss(tau=0.0, warmup_steps=0)(logits, masks[:, 1:], local, boxes, labels)
    with pytest.raises(ValueError, match=r"local_masks must be \(3, 4\)"):
        CarbLoss(tau=0.0, warmup_steps=0)(logits, masks, local[:, 1:], boxes, labels)
    with pytest.raises(ValueError, match=r"local_boxes: one Box per image \(2\) needed, got 1"):
        CarbLoss(tau=0.0, warmup_steps=0)(logits, masks, local, boxes[:1], labels)
    with pytest.raises(ValueError, match=r"carb.tau must be between 0 and 1, got 1.5"):
        CarbLoss(tau=1.5, warmup_steps=0)
