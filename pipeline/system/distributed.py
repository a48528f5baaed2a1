"""Collective operations of several processes: sums, shares of a batch, BatchNorm.

Process ``r`` of ``n`` holds photos ``r, r + n, ...`` of a batch, all the same number.
"""

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

import torch
import torch.distributed as dist
from torch import Tensor, nn

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger("carb")


def world_size() -> int:
    """Number of processes."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def all_reduce_sum(value: Tensor) -> Tensor:
    """Sum over all processes, without gradient."""
    value = value.detach().clone()
    if world_size() > 1:
        dist.all_reduce(value)
    return value


def all_reduce_sum_with_grad(own: Tensor) -> Tensor:
    """Sum over all processes, with the own part's gradient times their number.

    Data-parallel training averages gradients, which makes this the gradient of the sum.
    """
    part = world_size() * own
    return part + (all_reduce_sum(own) - part).detach()


def convert_sync_batchnorm(model: nn.Module, fabric: "Fabric") -> nn.Module:
    """On GPUs, make BatchNorm use the statistics of the global batch; before Fabric's setup.

    torch has no SyncBatchNorm for CPUs: there each process uses the statistics of its own photos.
    Each process draws dropout masks for its own photos, on GPUs too.
    """
    if fabric.world_size == 1:
        return model
    if fabric.device.type == "cpu":
        log.info(
            "%d processes on CPUs: batch statistics and dropout are those of each process, so the "
            "trained weights differ from those of one process",
            fabric.world_size,
        )
        return model
    from timm.layers import norm_act  # takes a second; converts timm's BatchNormAct too

    return norm_act.convert_sync_batchnorm(model)  # type: ignore[no-any-return, no-untyped-call]


def batch_norm_size(batch_size: int) -> int:
    """Number of images of a batch that BatchNorm sees at once: on CPUs those of one process."""
    return batch_size if torch.cuda.is_available() else batch_size // world_size()


def check_shares(fabric: "Fabric", batch_size: int, name: str) -> None:
    """Refuse a batch size that the number of processes does not divide; ``name``: its parameter."""
    if batch_size % fabric.world_size:
        raise_on_rank_zero(
            fabric,
            f"params.yaml: {name} must be a multiple of the number of devices "
            f"({fabric.world_size}), got {batch_size}",
        )


def check_same(fabric: "Fabric", value: object, complaint: str) -> None:
    """Raise ``complaint`` as ValueError if rank zero has another value."""
    if fabric.broadcast(value) != value:
        raise ValueError(complaint)


def gather_keys(fabric: "Fabric", own: Sequence[str]) -> list[str]:
    """Keys of all processes, in the order of the global batch."""
    if fabric.world_size == 1:
        return list(own)
    shares: list[Sequence[str]] = [[] for _ in range(fabric.world_size)]
    dist.all_gather_object(shares, own)
    return [each for row in zip(*shares, strict=True) for each in row]


def raise_on_rank_zero(fabric: "Fabric", complaint: str) -> NoReturn:
    """Raise an error that all processes find, so that only rank zero prints it.

    Raises:
        ValueError: the complaint.
        RuntimeError: on other processes, when rank zero has stopped.
    """
    if fabric.global_rank > 0:
        fabric.barrier()  # fails when rank zero has stopped
    raise ValueError(complaint)
