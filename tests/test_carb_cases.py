"""CARB over several steps against a slow loop in double precision: values, weight and gradient."""

import math
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.carb import CarbLoss
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.views import Box

STEPS, WARMUP, CLASSES, SIZE, WINDOW = 7, 2, 5, (6, 7), (3, 4)


@dataclass
class Step:
    """What one step sees."""

    logits: Tensor
    masks: Tensor
    local: Tensor
    boxes: list[Box]
    labels: Tensor


def draw_steps() -> list[Step]:
    """Steps of two photos, masks of present classes, windows at different places."""
    generator = torch.Generator().manual_seed(5)
    labels = torch.tensor([[1, 1, 0, 1, 0], [1, 0, 1, 1, 1]]).bool()
    steps = []
    for number in range(STEPS):
        shape = (2, CLASSES, *SIZE)
        logits = torch.randn(shape, generator=generator, dtype=torch.float64)
        scores = torch.rand(shape, generator=generator)
        masks = scores.masked_fill(~labels[:, :, None, None], -1).argmax(dim=1)
        boxes = [Box(number % 4, 1, *WINDOW), Box(3, number % 4, *WINDOW)]
        local = scores.flip(2).masked_fill(~labels[:, :, None, None], -1).argmax(dim=1)
        steps.append(Step(logits, masks, _cut(local, boxes), boxes, labels))
    return steps


def _cut(maps: Tensor, boxes: list[Box]) -> Tensor:
    parts = []
    for one, (top, left, height, width) in zip(maps, boxes, strict=True):
        rows, columns = slice(int(top), int(top + height)), slice(int(left), int(left + width))
        parts.append(one[..., rows, columns])
    return torch.stack(parts)


def _votes(step: Step) -> Tensor:
    return step.logits.masked_fill(~step.labels[:, :, None, None], -torch.inf).argmax(dim=1)


def negative(step: Step) -> None:
    step.logits -= 6


def all_reliable(step: Step) -> None:
    step.masks = _votes(step)
    step.local = _cut(step.masks, step.boxes)


def none_reliable(step: Step) -> None:
    worst = step.logits.masked_fill(~step.labels[:, :, None, None], torch.inf).argmin(dim=1)
    step.masks, step.local = worst, _cut(worst, step.boxes)


def ignored(step: Step) -> None:
    step.masks[0, :2] = IGNORE_INDEX
    step.local[1, :, 1:3] = IGNORE_INDEX


def local_ignored(step: Step) -> None:
    step.local = torch.full_like(step.local, IGNORE_INDEX)


def all_ignored(step: Step) -> None:
    step.masks = torch.full_like(step.masks, IGNORE_INDEX)
    local_ignored(step)


@dataclass
class Case:
    """What is changed in which steps (none: in all), and the loss's arguments."""

    change: Callable[[Step], None] = lambda step: None
    at: tuple[int, ...] = ()
    loss: dict[str, Any] = field(default_factory=dict)


CASES = {
    "plain": Case(loss={"base": 0.5, "queue_size": 2}),
    "negative logits": Case(negative),
    "all reliable at the first step of CARB and later": Case(all_reliable, (2, 4)),
    "none reliable at one step": Case(none_reliable, (3,)),
    "ignored blocks": Case(ignored),
    "local view ignored": Case(local_ignored, (1, 4)),
    "everything ignored at one step": Case(all_ignored, (5,)),
    "fixed weight": Case(loss={"weight": 0.03}),
    "weight of 0": Case(loss={"weight": 0.0}),
    "floor": Case(loss={"floor": 0.9}),
    "tau": Case(loss={"tau": 0.4}),
}


def slow_terms(logits: Tensor, masks: Tensor, labels: Tensor, tau: float) -> tuple[Any, Any]:
    """Losses of the reliable and of the noisy pixels, one pixel at a time."""
    reliable, noisy = [], []
    for photo in range(len(masks)):
        present = [index for index in range(CLASSES) if labels[photo, index]]
        for row in range(masks.shape[1]):
            for column in range(masks.shape[2]):
                wanted = int(masks[photo, row, column])
                if wanted == IGNORE_INDEX:
                    continue
                scores = logits[photo, :, row, column]
                loss = torch.logsumexp(scores, 0) - scores[wanted]
                values = [float(scores[index].detach()) for index in present]
                share = math.exp(float(scores[wanted].detach())) / sum(map(math.exp, values))
                agrees = present[values.index(max(values))] == wanted and share >= tau
                (reliable if agrees else noisy).append(loss)
    return reliable, noisy


def mean(losses: list[Tensor]) -> Any:
    return sum(losses) / len(losses) if losses else torch.zeros((), dtype=torch.float64)


def slow_run(
    steps: list[Step],
    *,
    tau: float = 0.0,
    base: float = 1.0,
    queue_size: int = 5,
    weight: float | None = None,
    floor: float = 0.0,
) -> list[tuple[float, float, Tensor]]:
    """Total, lambda and gradient of each step, as the paper has them."""
    pairs: deque[tuple[float, float]] = deque(maxlen=queue_size)
    found = []
    for number, step in enumerate(steps, start=1):
        logits = step.logits.clone().requires_grad_()
        reliable, noisy = slow_terms(logits, step.masks, step.labels, tau)
        near, far = slow_terms(_cut(logits, step.boxes), step.local, step.labels, tau)
        balance = 1.0
        if number <= WARMUP:
            total = mean(reliable + noisy) + mean(near + far)
        else:
            if reliable and noisy:
                pairs.append((mean(reliable).item(), mean(noisy).item()))
            if weight is not None:
                balance = weight
            elif pairs:
                ones, others = zip(*pairs, strict=True)
                balance = max(floor, base * sum(ones) / sum(others))
            else:
                balance = max(floor, base)
            total = mean(reliable) + mean(near) + balance * (mean(noisy) + mean(far))
        gradient = torch.zeros_like(logits)
        if total.requires_grad:
            (gradient,) = torch.autograd.grad(total, logits)
        found.append((float(torch.as_tensor(total).detach()), balance, gradient))
    return found


@pytest.mark.parametrize("name", CASES)
def test_each_step_equals_the_slow_loop(name: str) -> None:
    case, steps = CASES[name], draw_steps()
    for number, step in enumerate(steps):
        if not case.at or number in case.at:
            case.change(step)
    loss = CarbLoss(**{"tau": 0.0, "warmup_steps": WARMUP, **case.loss}).double()
    for step, (total, weight, gradient) in zip(steps, slow_run(steps, **case.loss), strict=True):
        logits = step.logits.clone().requires_grad_()
        terms = loss(logits, step.masks, step.local, step.boxes, step.labels)
        terms.total.backward()
        assert float(terms.total.detach()) == pytest.approx(total, rel=1e-12, abs=1e-12)
        assert float(terms.weight) == pytest.approx(weight, rel=1e-12)
        torch.testing.assert_close(logits.grad, gradient, rtol=1e-10, atol=1e-14)
