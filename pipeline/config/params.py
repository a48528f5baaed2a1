"""The schema of params.yaml: every value of the science, checked before any work starts."""

import math
import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from pipeline.config.errors import check_renamed, sentence
from pipeline.config.reader import read_sections
from pipeline.config.types import (
    Count,
    Deviations,
    Fraction,
    Means,
    NotNegative,
    Positive,
    Precision,
    Seed,
    Size,
    Span,
    Text,
    Zoom,
)
from pipeline.config.types import PaletteName as PaletteName  # for those who draw

MOST_OPTIONS = 1000


class Section(BaseModel):
    """A part of params.yaml: read-only, and nothing in it that the schema does not know.

    Strict: ``"600"`` is no number, ``"no"`` and 0 are not false; a whole number is a float, too.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class DatasetParams(Section):
    """Which photos, and where their image-level labels come from."""

    name: Literal["demo", "camvid", "cityscapes", "wilddash2", "folder"]
    root: Text
    image_labels: Text | None
    min_pixels: Count

    @model_validator(mode="after")
    def _root_is_a_place_for_photos(self) -> Self:
        if re.match(r"~(/|$)|\$", self.root):
            raise ValueError(
                f"root must be written in full, nothing expands '~' and '$', got '{self.root}'"
            )
        if os.path.abspath(self.root) in map(os.path.abspath, (".", "data", "models", "results")):
            raise ValueError(
                f"root must be a folder for photos alone, and stages write into '{self.root}'; "
                "move the photos into a folder of their own"
            )
        return self


class LevelParams(Section):
    """One view level of CLIP: how much the photo is magnified, and by which windows it is
    covered."""

    zoom: Zoom
    window: Size
    overlap: Annotated[float, Field(ge=0, lt=1)]


class FusedParams(Section):
    """One level more: all others summed and smoothed along the edges of the photo."""

    size: Size
    stride: Count
    radius: Count


class ClipParams(Section):
    """The frozen CLIP, what it is asked, and how it looks at a photo."""

    model: Text
    pretrained: Text | None
    dense: Literal["value", "vv", "sclip", "clearclip", "naclip"]
    repair_outliers: bool
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
            raise ValueError(f"levels must start with 'global', got {list(self.levels)}")
        for name in self.levels:  # each names a folder of the store, beside its own
            taken = name in ("text", "finished", "fused")
            if taken or not re.fullmatch("[A-Za-z][A-Za-z0-9_-]*", name):
                raise ValueError(
                    "levels must have names of letters, digits, '-' and '_', not 'text', "
                    f"'finished' or 'fused', got {name!r}"
                )
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
                f"local_window must fit into views.crop {list(self.crop)}, "
                f"got {list(self.local_window)}"
            )
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale must be [smallest, largest], got {list(self.scale)}")
        return self


class AugmentParams(Section):
    """Photometric changes; each is drawn once a crop."""

    style: Literal["torchvision", "mmseg"]
    brightness: Fraction
    contrast: Annotated[float, Field(ge=0, lt=1)]
    saturation: Annotated[float, Field(ge=0, lt=1)]
    hue: Annotated[float, Field(ge=0, le=0.5)]


class NormalisationParams(Section):
    """What is subtracted from RGB in 0 to 1, and what divides it, a value for each channel."""

    mean: Means
    std: Deviations


class SegmenterParams(Section):
    """The network that is trained."""

    arch: str
    encoder: str
    encoder_weights: str
    normalisation: Literal["imagenet", "half", "lite"] | NormalisationParams
    classifier: Literal["learned", "text"]
    options: dict[str, Any]

    @model_validator(mode="after")
    def _options_are_few(self) -> Self:
        left, seen = list(self.options.values()), 0
        while left:  # a short YAML can name one list over and over: a billion items
            item, seen = left.pop(), seen + 1
            items = item.values() if isinstance(item, dict) else item
            left += items if isinstance(item, dict | list | tuple | set) else []
            if seen > MOST_OPTIONS:
                raise ValueError(f"options must hold at most {MOST_OPTIONS} values, got more")
        return self


class CarbParams(Section):
    """Consistency-Aware Region Balancing."""

    enabled: bool
    tau: Fraction
    warmup_steps: Annotated[int, Field(ge=0, lt=2**31)] | None
    warmup_share: Fraction | None = None  # files of earlier versions have none
    base: NotNegative
    queue_size: Count
    weight: NotNegative | None
    min_weight: NotNegative

    @model_validator(mode="after")
    def _warmup_has_a_length(self) -> Self:
        if self.warmup_steps is None and self.warmup_share is None:
            raise ValueError("warmup_steps or carb.warmup_share must be a number, got neither")
        return self

    def warmup_of(self, steps: int) -> int:
        """How many of a training's ``steps`` are warm-up, rounded down; ``warmup_steps`` comes
        first where both are given."""
        if self.warmup_steps is not None:
            return self.warmup_steps
        assert self.warmup_share is not None
        return math.floor(self.warmup_share * steps + 1e-9)  # 0.29 * 100 is 28.999999999999996

    def active_steps(self, steps: int) -> int:
        """In how many of a training's ``steps`` CARB acts."""
        return max(0, steps - self.warmup_of(steps)) if self.enabled else 0

    def acted(self, steps: int) -> str:
        """When CARB acts in a training of ``steps``, in words."""
        warmup = self.warmup_of(steps)
        if not self.enabled:
            return "off"
        if warmup >= steps:
            return f"never acted (warm-up of {warmup} of {steps} steps)"
        return f"after {warmup} of {steps} steps"


class TrainParams(Section):
    """Optimisation of the segmenter; batch sizes are over all devices together."""

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
    def _rates_fall(self) -> Self:
        if self.min_lr > self.lr:
            raise ValueError(f"min_lr must be at most train.lr ({self.lr}), got {self.min_lr}")
        return self


class EvalParams(Section):
    """Which photos are scored, and how they are shown to the segmenter."""

    photos: Text | None
    scales: Annotated[list[Zoom], Field(min_length=1)]
    flip: bool
    window: Size | None
    edge_radius: Count | None


class PicturesParams(Section):
    """How pictures look; no figure depends on it."""

    palette: PaletteName
    font: Text | None = None


class DistillationParams(Section):
    """How the encoder learns CLIP's dense features when segmenter.encoder_weights is 'clip'."""

    seed: Seed
    steps: Count
    batch_size: Count
    lr: Positive
    weight_decay: NotNegative


class Params(Section):
    """The whole of params.yaml."""

    seed: Seed
    dataset: DatasetParams
    clip: ClipParams
    views: ViewsParams
    augment: AugmentParams
    segmenter: SegmenterParams
    carb: CarbParams
    train: TrainParams
    eval: EvalParams
    pictures: PicturesParams
    distillation: DistillationParams


def load_params(path: Path) -> Params:
    """Read and check a parameter file.

    Raises:
        ValueError: the file is missing, is no YAML, or breaks the schema; the message is one
            sentence that names the parameter.
    """
    content = read_sections(path)
    check_renamed(content, path.name)
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{path.name}: {sentence(error, content, Params)}") from None
