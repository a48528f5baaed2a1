"""A small training run with a tiny network."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from lightning_fabric import Fabric
from torch import Tensor, nn

from pipeline.config.params import Params
from pipeline.store.reader import PseudoMaskStore
from pipeline.training.augment import normalisation_of
from pipeline.training.batch_loss import make_loss
from pipeline.training.crops import CropDataset, TrainingPhoto
from pipeline.training.fit import Preview, fit

CLASSES = 3


class Net(nn.Module):
    """A segmenter with running statistics and dropout, which resuming must restore."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, stride=2, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.drop = nn.Dropout2d(0.2)
        self.last = nn.Conv2d(8, CLASSES, 1)

    def forward(self, images: Tensor) -> Tensor:
        features = self.drop(self.norm(self.first(images)).relu())
        return F.interpolate(self.last(features), images.shape[-2:], mode="bilinear")


class BreaksAtStep(Net):
    """Its logits are not finite from the given forward pass on."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.left = step

    def forward(self, images: Tensor) -> Tensor:
        self.left -= 1
        return super().forward(images) * (1 if self.left > 0 else torch.nan)


def changed(params: Params, **sections: dict[str, Any]) -> Params:
    """Other values for some parameters."""
    content = params.model_dump()
    for name, values in sections.items():
        content[name] |= values
    return Params.model_validate(content)


@dataclass
class Data:
    """Five photos of noise and their pseudo-masks."""

    photos: list[TrainingPhoto]
    store: PseudoMaskStore


@dataclass
class Outcome:
    """What a run left."""

    model: nn.Module
    metrics: list[dict[str, float]] = field(default_factory=list)
    previews: list[int] = field(default_factory=list)
    snapshots: list[int] = field(default_factory=list)


def run(
    data: Data,
    params: Params,
    checkpoint: Path,
    *,
    model: nn.Module | None = None,
    stop_at: int = 0,
    accelerator: str = "cpu",
    preview: Preview | None = None,
    fabric: Any = None,
) -> Outcome:
    """Train; ``stop_at`` is the step whose preview somebody interrupts."""
    outcome = Outcome(model or Net())

    def note(step: int, current: nn.Module) -> None:
        assert not current.training
        outcome.previews.append(step)
        if step == stop_at:
            raise KeyboardInterrupt

    fit(
        fabric or Fabric(accelerator=accelerator, devices=1, precision=params.train.precision),
        outcome.model,
        make_loss(
            data.store,
            data.photos,
            carb=params.carb,
            train=params.train,
            normalisation=normalisation_of(params.segmenter.normalisation),
        ),
        crops_of(data, params),
        params.train,
        checkpoint=checkpoint,
        log_step=outcome.metrics.append,
        preview=preview or note,
        snapshot=lambda step, current: outcome.snapshots.append(step),
    )
    return outcome


def crops_of(data: Data, params: Params) -> CropDataset:
    """The crops of a run."""
    return CropDataset(
        data.photos,
        data.store,
        global_level=data.store.global_level,
        local_levels=data.store.local_levels if params.train.local_term else [],
        views=params.views,
        augment=params.augment,
        seed=params.seed,
    )


def without_speed(metrics: list[dict[str, float]]) -> list[dict[str, float]]:
    return [{k: v for k, v in each.items() if k != "images_per_s"} for each in metrics]


def assert_equal_weights(model: nn.Module, other: nn.Module) -> None:
    wanted = other.state_dict()
    for name, value in model.state_dict().items():
        assert torch.equal(value, wanted[name]), name
