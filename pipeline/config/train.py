"""Section ``train`` of params.yaml, and the sections that every training reads."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.base import (
    Count,
    Fraction,
    NotNegative,
    Positive,
    Precision,
    Section,
    Sections,
)
from pipeline.config.clip import ClipParams
from pipeline.config.dataset import DatasetParams
from pipeline.config.segmenter import SegmenterParams
from pipeline.config.views import AugmentParams, ViewsParams


class TrainParams(Section):
    """Optimisation of the segmenter; batch_size is the total of all devices."""

    steps: Count
    batch_size: Count
    local_term: bool
    optimizer: Literal["sgd", "adamw"]
    schedule: Literal["poly", "one_cycle"]
    lr: Positive
    min_lr: NotNegative
    momentum: Fraction
    weight_decay: NotNegative
    class_weight_power: NotNegative
    dice_weight: NotNegative
    presence_weight: NotNegative = 0.0  # files of earlier versions have none
    label_temperature: NotNegative = 0.0  # likewise
    precision: Precision
    workers: Annotated[int, Field(ge=0, le=256)]
    checkpoint_every: Count
    preview_every: Count
    snapshots: Annotated[int, Field(ge=0, le=1000)] = 0  # files of earlier versions have none

    @model_validator(mode="after")
    def _lr_decreases(self) -> Self:
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr: must be at most train.lr ({self.lr}), got {self.min_lr}")
        return self

    @model_validator(mode="after")
    def _snapshots_fit_between_steps(self) -> Self:
        if self.snapshots >= self.steps:
            raise ValueError(
                f"snapshots: must be less than train.steps ({self.steps}), got {self.snapshots}"
            )
        return self

    @property
    def snapshot_steps(self) -> list[int]:
        """The steps after which a network is kept: evenly spaced, the last step excluded."""
        parts = self.snapshots + 1
        return [round(part * self.steps / parts) for part in range(1, parts)]


class TrainingSections(Sections):
    """What the stages `encoder`, `relabel` and `train` read, each with sections of its own."""

    dataset: DatasetParams
    clip: ClipParams
    views: ViewsParams
    augment: AugmentParams
    segmenter: SegmenterParams
    train: TrainParams
