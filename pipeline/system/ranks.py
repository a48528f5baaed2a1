"""Sums over all processes of a run: the number of devices is not science."""

import torch.distributed as dist
from torch import Tensor


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_reduce_sum_with_grad(own: Tensor) -> Tensor:
    """Sum over all processes; the gradient is the own part's times their number.

    Data-parallel training averages gradients, which makes it the sum's.
    """
    part = world_size() * own
    return part + (all_reduce_sum(own) - part).detach()


def all_reduce_sum(value: Tensor) -> Tensor:
    """Sum over all processes, without gradient."""
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value)
    return value
