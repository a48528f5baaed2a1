"""Learning rates and optimisers."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import SGD, AdamW
from torch.optim.lr_scheduler import OneCycleLR

from pipeline.training.optimizer import learning_rate, make_optimizer, one_cycle_lr, poly_lr

GOLDEN = Path(__file__).parents[1] / "golden" / "schedule_and_accum.npz"


@pytest.mark.parametrize(("name", "steps"), [("30k", 30_000), ("12k", 12_000)])
def test_poly_equals_the_authors(name, steps):
    golden = np.load(GOLDEN)
    rates = [
        poly_lr(int(it), steps=steps, lr=0.005, min_lr=1e-4) for it in golden[f"poly_{name}_iters"]
    ]
    np.testing.assert_allclose(rates, golden[f"poly_{name}_lr"], rtol=1e-12)


@pytest.mark.parametrize("steps", [7, 11, 99])
def test_one_cycle_equals_torch_s_at_every_step(steps):
    optimizer = SGD([nn.Parameter(torch.zeros(1))], lr=1.0, momentum=0.9)
    scheduler = OneCycleLR(
        optimizer, max_lr=2e-3, total_steps=steps, pct_start=0.1, anneal_strategy="cos"
    )
    for step in range(steps):
        rate = one_cycle_lr(step, steps=steps, lr=2e-3)
        assert rate == pytest.approx(scheduler.get_last_lr()[0], rel=1e-9), step
        optimizer.step()
        if step < steps - 1:
            scheduler.step()


def test_one_cycle_of_ten_steps_starts_at_its_peak():
    # A tenth of them is one step: torch's own divides by zero here.
    assert one_cycle_lr(0, steps=10, lr=2e-3) == pytest.approx(2e-3)
    assert one_cycle_lr(9, steps=10, lr=2e-3) == pytest.approx(2e-3 / 25e4)


def test_the_parameters_name_the_schedule(params):
    train = params.train.model_copy(update={"steps": 100, "lr": 0.5, "min_lr": 0.1})
    for step in (0, 9, 50, 99):
        poly = learning_rate(step, train.model_copy(update={"schedule": "poly"}))
        cycle = learning_rate(step, train.model_copy(update={"schedule": "one_cycle"}))
        assert poly == poly_lr(step, steps=100, lr=0.5, min_lr=0.1)
        assert cycle == one_cycle_lr(step, steps=100, lr=0.5)


@pytest.mark.parametrize(("name", "kind"), [("sgd", SGD), ("adamw", AdamW)])
def test_the_parameters_name_the_optimizer(params, name, kind):
    train = params.train.model_copy(
        update={"optimizer": name, "lr": 0.5, "momentum": 0.8, "weight_decay": 0.03}
    )
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1))
    model[0].bias.requires_grad_(False)
    optimizer = make_optimizer(model, train)
    assert type(optimizer) is kind
    group = optimizer.param_groups[0]
    assert (group["lr"], group["weight_decay"]) == (0.5, 0.03)
    assert group.get("momentum", 0.8) == 0.8
    learning = [model[0].weight, *model[1].parameters()]
    assert [id(weight) for weight in group["params"]] == [id(weight) for weight in learning]
