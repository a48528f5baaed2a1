"""Sections ``eval`` and ``pictures`` of params.yaml."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline.config.base import Count, Section, Size, Text, Zoom

PaletteName = Literal["dataset", "colour_blind"]


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
