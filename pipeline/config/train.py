"""Sections ``train``, ``views`` and ``augment`` of params.yaml: optimisation and crops."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.base import (
    Count,
    Fraction,
    NotNegative,
    Positive,
    Precision,
    Section,
    Size,
    Span,
)


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


class ViewsParams(Section):
    """The crops that the segmenter learns from; sizes are (height, width) in pixels."""

    base_size: Size
    scale: Span
    crop: Size
    local_window: Size
    flip: Fraction

    @model_validator(mode="after")
    def _windows_fit(self) -> Self:
        if any(local > crop for local, crop in zip(self.local_window, self.crop, strict=True)):
            raise ValueError(
                f"local_window: must fit into views.crop {list(self.crop)}, "
                f"got {list(self.local_window)}"
            )
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale: must be [smallest, largest], got {list(self.scale)}")
        return self


class AugmentParams(Section):
    """Photometric augmentation; each change is drawn once per crop."""

    style: Literal["torchvision", "mmseg"]
    brightness: Fraction
    contrast: Annotated[float, Field(ge=0, lt=1)]
    saturation: Annotated[float, Field(ge=0, lt=1)]
    hue: Annotated[float, Field(ge=0, le=0.5)]
