"""Kinds of values in params.yaml, with their bounds."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field


def _pair(value: object) -> object:
    """A list as the tuple that a strict schema wants; YAML knows no tuples."""
    return tuple(value) if isinstance(value, list) else value


Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0, lt=2**31)]  # libraries in C take no more
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Side = Annotated[int, Field(gt=0, le=2**15)]
Zoom = Annotated[float, Field(ge=0.05, le=16)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Means = Annotated[tuple[Finite, Finite, Finite], BeforeValidator(_pair)]  # a value per channel
Deviations = Annotated[tuple[Positive, Positive, Positive], BeforeValidator(_pair)]
Text = Annotated[str, Field(min_length=1)]
Size = Annotated[tuple[Side, Side], BeforeValidator(_pair)]  # (height, width) in pixels
Span = Annotated[tuple[Zoom, Zoom], BeforeValidator(_pair)]  # [smallest, largest]
Precision = Literal["auto", "bf16-mixed", "32-true"]
PaletteName = Literal["dataset", "colour_blind"]
