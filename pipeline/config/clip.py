"""Section ``clip`` of params.yaml."""

import re
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.base import Count, Fraction, Precision, Section, Size, Text, Zoom

# Names beside those of the levels: folders of the store, maps of the training previews.
RESERVED = ("text", "finished", "fused", "segmenter", "noisy", "relabelled")


class LevelParams(Section):
    """One view level of CLIP: magnification of the photo, and the windows that cover it."""

    zoom: Zoom
    window: Size
    overlap: Annotated[float, Field(ge=0, lt=1)]


class FusedParams(Section):
    """An additional level: the sum of all others, smoothed by a guided filter."""

    size: Size
    stride: Count
    radius: Count


class ClipParams(Section):
    """The frozen CLIP: model, prompts, dense features and view levels."""

    model: Text
    pretrained: Text | None
    dense: Literal["value", "vv", "sclip", "clearclip", "naclip"]
    repair_outliers: bool
    window_share: Fraction
    brightness: Annotated[float, Field(ge=0.05, le=0.95)] | None
    templates: Literal["carb", "plain"]
    class_prompts: dict[str, Annotated[list[Text], Field(min_length=1)]]
    normalisation: Literal["clip", "imagenet"]
    activation: Literal["trained", "gelu", "quick_gelu"]
    precision: Precision
    levels: dict[str, LevelParams]
    fused: FusedParams | None

    @model_validator(mode="after")
    def _levels_are_global_then_local(self) -> Self:
        if list(self.levels)[:1] != ["global"]:
            raise ValueError(f"levels: must start with 'global', got {list(self.levels)}")
        for name in self.levels:
            if name in RESERVED or not re.fullmatch("[A-Za-z][A-Za-z0-9_-]*", name):
                raise ValueError(
                    "levels: must have names of letters, digits, '-' and '_', other than "
                    f"{', '.join(RESERVED)}; got {name!r}"
                )
        return self
