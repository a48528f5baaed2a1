"""Non-finite losses and weights stop training."""

from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from lightning_fabric import Fabric
from torch import nn

from pipeline.carb import CarbTerms
from pipeline.training.non_finite import NonFiniteCheck, check_weights

NAN, INF = float("nan"), float("inf")


def on(device: str) -> Fabric:
    """One process with a device, of which only the name is used."""
    found: Any = SimpleNamespace(
        device=torch.device(device), world_size=1, global_rank=0, barrier=lambda: None
    )
    return cast("Fabric", found)


def terms(total: float, noisy: float = 1.0) -> CarbTerms:
    values = [total, 1.0, noisy, 1.0, 1.0, 0.5, 0.5]
    return CarbTerms(*(torch.tensor(value, requires_grad=True) for value in values))


MESSAGE = r"step 2: the loss is not finite \(total, noisy\) on train/a, train/b; lower .*train.lr"


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_step_whose_loss_is_not_finite_is_named_at_once(value: float) -> None:
    check = NonFiniteCheck(on("cpu"))
    check.observe(terms(1.0), 1, ["train/x"])
    with pytest.raises(ValueError, match=MESSAGE):
        check.observe(terms(value, noisy=value), 2, ["train/a", "train/b"])


def test_on_a_gpu_it_is_named_at_the_next_step_or_the_end() -> None:
    check = NonFiniteCheck(on("cuda"))
    check.observe(terms(1.0), 1, ["train/x"])
    check.observe(terms(NAN, noisy=NAN), 2, ["train/a", "train/b"])
    with pytest.raises(ValueError, match=MESSAGE):
        check.observe(terms(1.0), 3, ["train/y"])
    check.observe(terms(NAN, noisy=NAN), 2, ["train/a", "train/b"])
    with pytest.raises(ValueError, match=MESSAGE):  # the last step
        check.finish()


def test_a_term_outside_the_total_may_be_non_finite() -> None:
    check = NonFiniteCheck(on("cpu"))
    check.observe(terms(1.0, noisy=NAN), 1, ["train/x"])
    check.finish()


@pytest.mark.parametrize("name", ["weight", "running_var"])
def test_weights_that_are_not_finite_are_named(name: str) -> None:
    model = nn.Sequential(nn.BatchNorm2d(2))
    check_weights(on("cpu"), model, 7, lr="train.lr")
    model[0].state_dict()[name][1] = NAN
    with pytest.raises(ValueError, match=rf"step 7: the weights '0.{name}' are not finite; lower"):
        check_weights(on("cpu"), model, 7, lr="train.lr")
