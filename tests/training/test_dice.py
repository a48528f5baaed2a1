"""The Dice loss, against segmentation_models_pytorch's and by hand."""

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from segmentation_models_pytorch.losses import DiceLoss

from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.training.dice import dice_loss


def scene(classes: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    logits = torch.randn(3, classes, 6, 8, generator=generator)
    masks = torch.randint(0, classes, (3, 6, 8), generator=generator)
    masks[:, :2] = IGNORE_INDEX
    return logits, masks


def test_it_is_the_library_s_with_the_mean_over_present_classes() -> None:
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


def test_a_sure_and_right_answer_costs_nothing() -> None:
    _, masks = scene()
    logits = 50.0 * torch.nn.functional.one_hot(masks % 4, 4).permute(0, 3, 1, 2)
    assert float(dice_loss(logits, masks)) == pytest.approx(0, abs=1e-5)


def test_every_class_counts_alike() -> None:
    masks = torch.zeros(1, 10, 10, dtype=torch.int64)
    masks[0, 0, :2] = 1
    missed = 50.0 * torch.nn.functional.one_hot(torch.zeros_like(masks), 2).permute(0, 3, 1, 2)
    # 2 pixels missed are half the loss: 1 - 1/3 for their class, next to nothing for the other
    wanted = ((1 - 1 / 3) + (1 - (2 * 98 + 1) / (100 + 98 + 1))) / 2
    assert float(dice_loss(missed, masks)) == pytest.approx(wanted, rel=1e-5)


def test_nothing_to_learn_from_costs_nothing() -> None:
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    loss = dice_loss(logits, torch.full((1, 4, 4), IGNORE_INDEX))
    assert float(loss.detach()) == 0
    (gradient,) = torch.autograd.grad(loss, logits)
    assert torch.equal(gradient, torch.zeros_like(gradient))


def _one_of_two(rank: int, folder: Path) -> None:
    """Each process holds its own photos; process 0 has one, process 1 two."""
    rendezvous = f"file://{folder / 'rendezvous'}"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    logits, masks = scene()
    own = slice(0, 1) if rank == 0 else slice(1, 3)
    part = logits[own].clone().requires_grad_()
    loss = dice_loss(part, masks[own])
    (gradient,) = torch.autograd.grad(loss, part)
    torch.save([loss.detach(), gradient], folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_loss_and_the_gradient_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_one_of_two, (tmp_path,), nprocs=2)
    logits, masks = scene()
    logits.requires_grad_()
    loss = dice_loss(logits, masks)
    (wanted,) = torch.autograd.grad(loss, logits)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for value, _ in parts:
        torch.testing.assert_close(value, loss.detach())
    averaged = torch.cat([gradient for _, gradient in parts]) / 2  # as data-parallel training does
    torch.testing.assert_close(averaged, wanted)
