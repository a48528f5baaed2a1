"""Section ``segmenter`` of params.yaml."""

import os
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from pipeline.config.base import Positive, Section, Text, as_tuple

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
    weights: Text | None = None  # files of earlier versions have none
    normalisation: Literal["imagenet", "half", "lite"] | NormalisationParams
    classifier: Literal["learned", "text"]
    options: dict[str, Any]

    @model_validator(mode="after")
    def _weights_are_not_an_output(self) -> Self:
        written = os.path.abspath("models/segmenter")
        if self.weights and f"{os.path.abspath(self.weights)}/".startswith(f"{written}/"):
            raise ValueError(
                f"weights: stage train replaces '{self.weights}'; copy it to another folder first"
            )
        return self

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
