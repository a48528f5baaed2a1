"""Sections ``eval`` and ``pictures`` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.base import Count, Section, Sections, Size, Text, Zoom
from pipeline.config.dataset import DatasetParams

PaletteName = Literal["dataset", "colour_blind"]


class EvalParams(Section):
    """The photos of the evaluation, and how the segmenter sees them."""

    photos: Text | None
    weights: Literal["last", "best"] = "last"  # files of earlier versions have none
    scales: Annotated[list[Zoom], Field(min_length=1)]
    flip: bool
    window: Size | None
    edge_radius: Count | None


class PicturesParams(Section):
    """Palette and font of pictures; no metric depends on them."""

    palette: PaletteName
    font: Text | None = None


class EvaluationSettings(Sections):
    """Sections of params.yaml that the evaluation reads."""

    dataset: DatasetParams
    eval: EvalParams
    pictures: PicturesParams
