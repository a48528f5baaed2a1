"""Section ``relabel`` of params.yaml."""

from typing import Annotated

from pydantic import Field

from pipeline.config.base import Count, NotNegative, Section, Sections, Seed
from pipeline.config.clip import ClipParams
from pipeline.config.dataset import DatasetParams
from pipeline.config.segmenter import SegmenterParams
from pipeline.config.train import TrainParams
from pipeline.config.views import AugmentParams, ViewsParams


class RelabelParams(Section):
    """Relabelling of the training images by segmenters trained on the other folds."""

    rounds: Annotated[int, Field(ge=0, le=8)]
    folds: Annotated[int, Field(ge=2, le=32)]
    steps: Count
    clip_weight: NotNegative
    place_weight: NotNegative
    edge_radius: Count | None
    seed: Seed


class RelabelSettings(Sections):
    """What the stage `relabel` reads of params.yaml."""

    dataset: DatasetParams
    clip: ClipParams
    views: ViewsParams
    augment: AugmentParams
    segmenter: SegmenterParams
    train: TrainParams
    relabel: RelabelParams
