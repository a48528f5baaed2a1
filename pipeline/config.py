"""The schema of params.yaml: every value of the science, checked before any work starts."""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

Size = tuple[Annotated[int, Field(gt=0)], Annotated[int, Field(gt=0)]]  # (height, width) in pixels
Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Precision = Literal["auto", "bf16-mixed", "32-true"]


class Section(BaseModel):
    """A part of params.yaml: read-only, and nothing in it that the schema does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class DatasetParams(Section):
    """Which photos, and where their image-level labels come from."""

    name: Literal["demo", "camvid"]
    root: str
    image_labels: str | None
    min_pixels: Count


class LevelParams(Section):
    """One view level of CLIP: how much the photo is magnified, and by which windows it is
    covered."""

    zoom: Positive
    window: Size
    overlap: Annotated[float, Field(ge=0, lt=1)]


class ClipParams(Section):
    """The frozen CLIP, what it is asked, and how it looks at a photo."""

    model: str
    pretrained: str | None
    dense: Literal["value"]
    templates: Literal["carb", "plain"]
    words: dict[str, Annotated[list[str], Field(min_length=1)]]
    precision: Precision
    levels: dict[str, LevelParams]

    @model_validator(mode="after")
    def _levels_are_global_then_local(self) -> Self:
        if list(self.levels)[:1] != ["global"]:
            raise ValueError("levels must start with 'global'")
        return self


class ViewsParams(Section):
    """The crops that the segmenter learns from; sizes are (height, width) in pixels."""

    base_size: Size
    scale: tuple[Positive, Positive]
    crop: Size
    local_window: Size
    flip: Fraction

    @model_validator(mode="after")
    def _windows_fit(self) -> Self:
        if any(local > crop for local, crop in zip(self.local_window, self.crop, strict=True)):
            raise ValueError(
                f"local_window {list(self.local_window)} must fit into crop {list(self.crop)}"
            )
        if self.scale[0] > self.scale[1]:
            raise ValueError(f"scale must be [smallest, largest], got {list(self.scale)}")
        return self


class AugmentParams(Section):
    """Photometric changes; each is drawn once a crop."""

    brightness: Fraction
    contrast: Annotated[float, Field(ge=0, lt=1)]
    saturation: Annotated[float, Field(ge=0, lt=1)]
    hue: Annotated[float, Field(ge=0, le=0.5)]


class SegmenterParams(Section):
    """The network that is trained."""

    arch: str
    encoder: str
    encoder_weights: str
    classifier: Literal["learned", "text"]
    options: dict[str, Any]


class CarbParams(Section):
    """Consistency-Aware Region Balancing."""

    tau: Fraction
    warmup_steps: Annotated[int, Field(ge=0)]
    base: NotNegative
    queue_size: Count
    weight: NotNegative | None


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
    precision: Precision
    workers: Annotated[int, Field(ge=0)]
    checkpoint_every: Count
    preview_every: Count


class WarmStartParams(Section):
    """How the encoder learns CLIP's dense features when segmenter.encoder_weights is 'clip'."""

    seed: Annotated[int, Field(ge=0)]
    steps: Count
    batch_size: Count
    lr: Positive
    weight_decay: NotNegative


class Params(Section):
    """The whole of params.yaml."""

    seed: Annotated[int, Field(ge=0, lt=2**31)]
    dataset: DatasetParams
    clip: ClipParams
    views: ViewsParams
    augment: AugmentParams
    segmenter: SegmenterParams
    carb: CarbParams
    train: TrainParams
    warm_start: WarmStartParams


def _known_keys(path: tuple[str | int, ...]) -> list[str]:
    """Keys that the schema allows beside the last one of ``path``."""
    model: type[BaseModel] = Params
    for part in path[:-1]:
        field = model.model_fields.get(str(part))
        if field is None or not (
            isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel)
        ):
            return list(model.model_fields) if field is None else []
        model = field.annotation
    return list(model.model_fields)


def _sentence(error: ValidationError, path: Path) -> str:
    """The first thing wrong: which parameter, what was found, what to do."""
    first = error.errors()[0]
    name = ".".join(str(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        close = difflib.get_close_matches(str(first["loc"][-1]), _known_keys(first["loc"]), n=1)
        hint = f"did you mean '{close[0]}'?" if close else "remove it"
        return f"{path.name}: {name} is no parameter; {hint}"
    if first["type"] == "missing":
        return (
            f"{path.name}: {name} is missing; add it (the committed params.yaml shows its meaning)"
        )
    text = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":
        return f"{path.name}: {name}: {text}"
    text = text[0].lower() + text[1:].replace("Input", "").strip()
    text = text.removeprefix("input ").strip()
    return f"{path.name}: {name} {text}, got {first['input']!r}"


def load_params(path: Path) -> Params:
    """Read and check a parameter file.

    YAML 1.2, as DVC reads it (``5e-4`` is a number), and safe: no tags, no objects.

    Raises:
        ValueError: the file is missing, is no YAML, or breaks the schema; the message is one
            sentence that names the parameter.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file; copy one of recipes/*.yaml to params.yaml")
    try:
        content = YAML(typ="safe", pure=True).load(path)
    except (YAMLError, UnicodeDecodeError) as error:
        place = getattr(error, "problem_mark", None)
        line = f" in line {place.line + 1}" if place else ""
        raise ValueError(f"{path.name}: not readable as YAML{line}; correct its syntax") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path.name}: must hold sections such as 'train:', got {content!r}")
    try:
        return Params.model_validate(content)
    except ValidationError as error:
        raise ValueError(_sentence(error, path)) from None
