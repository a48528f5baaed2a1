"""Section ``relabel`` of params.yaml."""

from typing import Annotated

from pydantic import Field

from pipeline.config.base import Count, NotNegative, Section, Seed
from pipeline.config.train import TrainingSections


class RelabelParams(Section):
    """Relabelling of the training images by segmenters trained on the other folds."""

    rounds: Annotated[int, Field(ge=0, le=8)]
    folds: Annotated[int, Field(ge=2, le=32)]
    steps: Count
    clip_weight: NotNegative
    place_weight: NotNegative
    edge_radius: Count | None
    seed: Seed


class RelabelSettings(TrainingSections):
    """What the stage `relabel` reads of params.yaml."""

    relabel: RelabelParams
