"""Losses on two processes equal those of one process with all images."""

from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor

from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.training.batch_loss import dice_loss, presence_loss
from pipeline.training.soft_labels import SoftLabels
from tests.test_carb_laws import Scene, assert_equal, drawn, run

SHARES = [slice(0, 1), slice(1, 4)]  # of four images process 0 has one, process 1 three
OPTIONS = [{}, {"class_weights": torch.tensor([1.0, 3.0, 0.2])}, {"tau": 0.4, "queue_size": 2}]


def scenes_to_share() -> list[Scene]:
    """In one step all pixels of process 0 are ignored, in the next one those of process 1."""
    steps = [drawn(seed, photos=4, classes=3, size=(5, 6)) for seed in range(4)]
    for step, blind in ((1, SHARES[0]), (2, SHARES[1])):
        steps[step].masks[blind] = IGNORE_INDEX
        steps[step].local[blind] = IGNORE_INDEX
    return steps


def added(scene: Scene) -> tuple[Tensor, Tensor]:
    """The Dice losses, the presence loss and soft labels, and the gradient of their sum."""
    logits = scene.logits.clone().requires_grad_()
    balance = SoftLabels(logits.shape[1], temperature=0.5)
    clip = scene.logits.flip(1).float()
    balance.update(clip, logits, scene.masks.clamp_max(2))
    soft = balance(clip).exp()
    losses = torch.stack(
        [
            dice_loss(logits, scene.masks),
            dice_loss(logits, scene.masks, soft),
            presence_loss(logits, scene.labels),
            balance.raised.sum(),
        ]
    )
    return losses.detach(), torch.autograd.grad(losses.sum(), logits)[0]


def _one_of_two(rank: int, folder: Path) -> None:
    """Compute all losses on this process's images."""
    rendezvous = f"file://{folder / 'rendezvous'}"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    own = [scene[SHARES[rank]] for scene in scenes_to_share()]
    found = {"carb": [run(own, **options) for options in OPTIONS], "added": list(map(added, own))}
    torch.save(found, folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_losses_and_the_gradients_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_one_of_two, (tmp_path,), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2))
    for number, options in enumerate(OPTIONS):
        shares = [first["carb"][number], second["carb"][number]]
        for one, other in zip(*shares, strict=True):  # data-parallel training averages gradients
            joined = torch.cat([one.pop("gradient"), other.pop("gradient")]) / 2
            one["gradient"] = other["gradient"] = joined
        for share in shares:
            assert_equal(share, run(scenes_to_share(), **options))
    for scene, one, other in zip(scenes_to_share(), first["added"], second["added"], strict=True):
        losses, gradient = added(scene)
        assert torch.equal(one[0], other[0])
        torch.testing.assert_close(one[0], losses)
        joined = torch.cat([one[1], other[1]]) / 2
        torch.testing.assert_close(joined, gradient, rtol=1e-4, atol=1e-8)
