"""Section ``train`` of params.yaml."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.base import Count, Fraction, NotNegative, Positive, Precision, Section


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
    precision: Precision
    workers: Annotated[int, Field(ge=0, le=256)]
    checkpoint_every: Count
    preview_every: Count

    @model_validator(mode="after")
    def _lr_decreases(self) -> Self:
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr: must be at most train.lr ({self.lr}), got {self.min_lr}")
        return self
