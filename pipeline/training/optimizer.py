"""Optimiser, and learning rates as functions of the step: resuming needs no scheduler state."""

import math

from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from pipeline.config.train import TrainParams


def poly_lr(step: int, *, steps: int, lr: float, min_lr: float) -> float:
    """Polynomial decay from ``lr`` to ``min_lr``, as mmsegmentation's and the paper's.

    Args:
        step: 0 for the first update.
        steps: number of updates.
        lr: first learning rate.
        min_lr: last learning rate, of step ``steps``.
    """
    decay: float = (1 - step / steps) ** 0.9
    return (lr - min_lr) * decay + min_lr


def one_cycle_lr(step: int, *, steps: int, lr: float) -> float:
    """Half a cosine up from ``lr / 25`` over the first tenth of the steps, then down to about 0.

    Smith and Topin, arXiv 1708.07120, with the cosine form and factors of torch's ``OneCycleLR``.
    """
    low, end = lr / 25, lr / 25e4
    peak = 0.1 * steps - 1
    last = max(1.0, steps - 1 - peak)

    def cosine(start: float, stop: float, share: float) -> float:
        return stop + (start - stop) * (1 + math.cos(math.pi * share)) / 2

    if peak > 0 and step <= peak:  # with ten steps or fewer the first is the peak
        return cosine(low, lr, step / peak)
    return cosine(lr, end, min(1.0, (step - peak) / last))


def learning_rate(step: int, params: TrainParams) -> float:
    """The learning rate of an update, 0 for the first."""
    if params.schedule == "poly":
        return poly_lr(step, steps=params.steps, lr=params.lr, min_lr=params.min_lr)
    return one_cycle_lr(step, steps=params.steps, lr=params.lr)


def make_optimizer(model: nn.Module, params: TrainParams) -> Optimizer:
    """SGD with momentum (paper) or AdamW over the trainable parameters."""
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    if params.optimizer == "sgd":
        return SGD(
            weights, lr=params.lr, momentum=params.momentum, weight_decay=params.weight_decay
        )
    return AdamW(weights, lr=params.lr, weight_decay=params.weight_decay)


def set_lr(optimizer: Optimizer, lr: float) -> None:
    """Use one learning rate for all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = lr
