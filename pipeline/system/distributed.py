"""Several processes learn as one would: BatchNorm and dropout see the batch of all of them.

Process ``r`` of ``n`` holds photos ``r, r + n, ...`` of a step's batch, each as many photos.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn, cast

import torch
import torch.distributed as dist
from segmentation_models_pytorch.encoders.efficientnet import EfficientNetEncoder
from timm.layers.drop import DropPath
from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import StochasticDepth

from pipeline.system.ranks import all_reduce_sum

if TYPE_CHECKING:
    from lightning_fabric import Fabric

# They multiply what passes through them by a drawn mask; axis 0 is the photos.
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, DropPath, StochasticDepth)


def synchronise_batch_norm(model: nn.Module, fabric: "Fabric") -> nn.Module:
    """Make a model's BatchNorm and dropout independent of the number of processes.

    The names and values in its ``state_dict`` stay; a single process keeps its model as it is.

    Args:
        model: changed in place, before Fabric wraps it.
        fabric: the devices.
    """
    if fabric.world_size == 1:
        return model
    if any(isinstance(module, EfficientNetEncoder) for module in model.modules()):
        raise_on_first_rank(
            fabric,
            "params.yaml: segmenter.encoder: smp's own efficientnet drops layers by masks that "
            "several processes cannot share; take its twin of timm, tu-efficientnet_b0 and so on",
        )
    if fabric.device.type != "cpu":
        # timm's also knows BatchNorm with an activation
        model = convert_sync_batchnorm(model)  # type: ignore[no-untyped-call]
    for name, module in list(model.named_modules()):
        if isinstance(module, _DROPOUTS) and _rate(module) > 0:
            model.set_submodule(name, SharedMask(module, fabric.global_rank, fabric.world_size))
        elif isinstance(module, _BatchNorm) and fabric.device.type == "cpu":
            timms = isinstance(module, BatchNormAct2d)
            module.__class__ = CpuSyncBatchNormAct if timms else CpuSyncBatchNorm
    return model


def _rate(module: nn.Module) -> float:
    rate: Any = module.drop_prob if isinstance(module, DropPath) else module.p
    return float(rate)


class _Normalise(Function):
    """Normalise each channel by its mean and variance over all processes.

    Sums are float64, as in torch's BatchNorm on a CPU. The gradients of weight and bias are those
    of the own photos: data-parallel training adds the others'.
    """

    @staticmethod
    def forward(
        ctx: Any, features: Tensor, weight: Tensor, bias: Tensor, eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """``[B, C, ...]`` to the same, and mean and variance ``[C]``; each process has B photos."""
        axes = [0, *range(2, features.ndim)]
        ctx.count = dist.get_world_size() * features.numel() // features.shape[1]
        mean = all_reduce_sum(features.sum(axes, dtype=torch.float64)) / ctx.count
        centred = features - _by_channel(mean, features)
        variance = all_reduce_sum(centred.square().sum(axes, dtype=torch.float64)) / ctx.count
        scale = (variance + eps).rsqrt()
        ctx.save_for_backward(features, weight, mean, scale)
        ctx.mark_non_differentiable(mean, variance)
        made = centred * _by_channel(scale * weight, features) + _by_channel(bias, features)
        return made.to(features.dtype), mean, variance

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        """The gradients of features, weight and bias."""
        gradient, (features, weight, mean, scale) = gradients[0], ctx.saved_tensors
        axes = [0, *range(2, features.ndim)]
        unit = (features - _by_channel(mean, features)) * _by_channel(scale, features)
        own = torch.stack(
            [part.sum(axes, dtype=torch.float64) for part in (gradient, gradient * unit)]
        )
        plain, along = all_reduce_sum(own) / ctx.count
        rest = gradient - _by_channel(plain, features) - unit * _by_channel(along, features)
        made = rest * _by_channel(scale * weight, features)
        return made.to(features.dtype), own[1].to(weight.dtype), own[0].to(weight.dtype), None


def _by_channel(values: Tensor, features: Tensor) -> Tensor:
    """Values ``[C]`` float, to be combined with ``[B, C, ...]``."""
    wide = torch.promote_types(features.dtype, torch.float32)
    return values.to(wide).view(1, -1, *(1 for _ in features.shape[2:]))


class CpuSyncBatchNorm(_BatchNorm):
    """BatchNorm with the statistics of all processes, on CPUs; torch's own is for GPUs alone."""

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``[B, C, ...]`` by the mean and variance of each channel."""
        return _normalised(self, input) if self.training else super().forward(input)

    def _check_input_dim(self, input: Tensor) -> None:
        """Any number of axes will do."""


class CpuSyncBatchNormAct(BatchNormAct2d):
    """The same for timm's BatchNorm with an activation."""

    def forward(self, x: Tensor) -> Tensor:
        """Normalise and activate ``[B, C, H, W]``."""
        if not self.training:
            return cast("Tensor", super().forward(x))  # type: ignore[no-untyped-call]
        return cast("Tensor", self.act(self.drop(_normalised(self, x))))


def _normalised(norm: _BatchNorm, features: Tensor) -> Tensor:
    """BatchNorm in training; its running statistics move."""
    weight, bias = (
        torch.full([norm.num_features], value) if given is None else given
        for given, value in ((norm.weight, 1.0), (norm.bias, 0.0))
    )
    found = _Normalise.apply(features, weight, bias, norm.eps)
    made, mean, variance = cast("tuple[Tensor, Tensor, Tensor]", found)
    if norm.running_mean is not None and norm.running_var is not None:
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.add_(1)
        share = norm.momentum if norm.momentum is not None else 1 / int(norm.num_batches_tracked)
        count = dist.get_world_size() * features.numel() // len(mean)
        norm.running_mean.lerp_(mean.to(norm.running_mean.dtype), share)
        unbiased = variance * count / (count - 1)
        norm.running_var.lerp_(unbiased.to(norm.running_var.dtype), share)
    return made


class SharedMask(nn.Module):
    """Dropout that draws the mask of the global batch and takes the rows of its own photos.

    All processes draw from the same state of torch's random stream, which is also what one process
    would draw from for the whole batch.

    Args:
        dropout: multiplies by a drawn mask.
        rank: this process.
        world: number of processes.
    """

    def __init__(self, dropout: nn.Module, rank: int, world: int) -> None:
        super().__init__()
        self.dropout, self.rank, self.world = dropout, rank, world

    def forward(self, features: Tensor) -> Tensor:
        """Drop parts of ``[B, ...]``, where B are this process's photos."""
        if not self.training:
            return features
        shape = (self.world * len(features), *features.shape[1:])
        # The order in memory is the order of drawing: that of the features, photo by photo.
        strides = (features[0].numel(), *features.stride()[1:])
        ones = torch.empty_strided(shape, strides, dtype=features.dtype, device=features.device)
        mask: Tensor = self.dropout(ones.fill_(1))
        return features * mask[self.rank :: self.world]


def check_shares(fabric: "Fabric", batch_size: int, name: str) -> None:
    """Refuse a batch that the processes cannot share evenly.

    Raises:
        ValueError: names the parameter.
    """
    if batch_size % fabric.world_size:
        raise_on_first_rank(
            fabric,
            f"params.yaml: {name} must be a multiple of the number of devices "
            f"({fabric.world_size}), got {batch_size}",
        )


def check_same(fabric: "Fabric", value: int, complaint: str) -> None:
    """Refuse to go on where the first process found something else than this one.

    Raises:
        ValueError: the complaint.
    """
    if fabric.broadcast(value) != value:
        raise ValueError(complaint)


def gather_keys(fabric: "Fabric", own: Sequence[str]) -> list[str]:
    """What all processes hold, in the order of the global batch."""
    if fabric.world_size == 1:
        return list(own)
    shares: list[Sequence[str]] = [[] for _ in range(fabric.world_size)]
    dist.all_gather_object(shares, own)
    return [each for row in zip(*shares, strict=True) for each in row]


def raise_on_first_rank(fabric: "Fabric", complaint: str) -> NoReturn:
    """Stop on what all processes find alike: the first one tells it, the others wait until it has.

    Raises:
        ValueError: the complaint.
    """
    if fabric.global_rank > 0:
        fabric.barrier()  # fails when the first process has stopped
    raise ValueError(complaint)
