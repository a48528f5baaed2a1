"""The schema of params.yaml: every value of the science, checked before any work starts."""

import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import PydanticKnownError
from ruamel.yaml import YAML

from pipeline.config_faults import sentence
from pipeline.wording import shown


def _refuse_switch(value: object) -> object:
    """Refuse true and false as numbers: ``carb.weight: true`` would fix lambda at 1."""
    if isinstance(value, bool):
        raise PydanticKnownError("float_type")
    return value


Number = Annotated[float, BeforeValidator(_refuse_switch)]
Whole = Annotated[int, BeforeValidator(_refuse_switch)]
Fraction = Annotated[Number, Field(ge=0, le=1)]
Positive = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[Whole, Field(gt=0, lt=2**31)]  # libraries in C take no more
Seed = Annotated[Whole, Field(ge=0, lt=2**31)]
Side = Annotated[Whole, Field(gt=0, le=2**15)]
Zoom = Annotated[Number, Field(ge=0.05, le=16)]
Finite = Annotated[Number, Field(allow_inf_nan=False)]
NotNegative = Annotated[Number, Field(ge=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
Size = tuple[Side, Side]  # (height, width) in pixels
MOST_OPTIONS = 1000
Precision = Literal["auto", "bf16-mixed", "32-true"]
PaletteName = Literal["dataset", "colour_blind"]


class Section(BaseModel):
    """A part of params.yaml: read-only, and nothing in it that the schema does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class LabelNoiseParams(Section):
    """Errors put into the image-level labels on purpose, to see what they cost."""

    miss: Fraction
    false_alarm: Fraction
    seed: Seed


class DatasetParams(Section):
    """Which photos, and where their image-level labels come from."""

    name: Literal["demo", "camvid", "cityscapes", "wilddash2", "folder"]
    root: Text
    image_labels: Text | None
    min_pixels: Count
    label_noise: LabelNoiseParams


class LevelParams(Section):
    """One view level of CLIP: how much the photo is magnified, and by which windows it is
    covered."""

    zoom: Zoom
    window: Size
    overlap: Annotated[Number, Field(ge=0, lt=1)]


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
    words: dict[str, Annotated[list[Text], Field(min_length=1)]]
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
    scale: tuple[Zoom, Zoom]
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
    contrast: Annotated[Number, Field(ge=0, lt=1)]
    saturation: Annotated[Number, Field(ge=0, lt=1)]
    hue: Annotated[Number, Field(ge=0, le=0.5)]


class NormalisationParams(Section):
    """What is subtracted from RGB in 0 to 1, and what divides it, a value for each channel."""

    mean: tuple[Finite, Finite, Finite]
    std: tuple[Positive, Positive, Positive]


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
    warmup_steps: Annotated[Whole, Field(ge=0, lt=2**31)]
    base: NotNegative
    queue_size: Count
    weight: NotNegative | None
    floor: NotNegative


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
    dice: NotNegative
    precision: Precision
    workers: Annotated[Whole, Field(ge=0, le=256)]
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


class WarmStartParams(Section):
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
    warm_start: WarmStartParams


def load_params(path: Path) -> Params:
    """Read and check a parameter file.

    YAML 1.2, as DVC reads it (``5e-4`` is a number), and safe: no tags, no objects.

    Raises:
        ValueError: the file is missing, is no YAML, or breaks the schema; the message is one
            sentence that names the parameter.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise ValueError(f"{path}: {found}; copy one of recipes/*.yaml to params.yaml")
    try:
        content = YAML(typ="safe", pure=True).load(path)
    except Exception as error:  # ruamel.yaml lets IndexError, KeyError and others through
        place = getattr(error, "problem_mark", None)
        line = f" in line {place.line + 1}" if place else ""
        found = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ValueError(
            f"{path.name}: not readable as YAML{line} ({found}); correct its syntax"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name}: must hold sections such as 'train:', got {shown(content)}")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{path.name}: {sentence(error, content, Params)}") from None
