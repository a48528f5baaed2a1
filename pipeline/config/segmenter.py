"""Sections ``segmenter`` and ``distillation`` of params.yaml: the network and its pretraining."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config.base import Count, NotNegative, Positive, Section, Seed, as_tuple

MAX_OPTIONS = 1000
Finite = Annotated[float, Field(allow_inf_nan=False)]
Means = Annotated[tuple[Finite, Finite, Finite], BeforeValidator(as_tuple)]
Deviations = Annotated[tuple[Positive, Positive, Positive], BeforeValidator(as_tuple)]


class NormalisationParams(Section):
    """Mean and standard deviation of RGB in 0 to 1, one value per channel."""

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
        while left:  # YAML aliases can expand a short file to a billion items
            item, seen = left.pop(), seen + 1
            items = item.values() if isinstance(item, dict) else item
            left += items if isinstance(item, dict | list | tuple | set) else []
            if seen > MAX_OPTIONS:
                raise ValueError(f"options: must hold at most {MAX_OPTIONS} values, got more")
        return self


class DistillationParams(Section):
    """Distillation of CLIP's dense features, used if segmenter.encoder_weights is 'clip'."""

    seed: Seed
    steps: Count
    batch_size: Count
    lr: Positive
    weight_decay: NotNegative
