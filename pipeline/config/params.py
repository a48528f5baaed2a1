"""All sections of params.yaml, checked by `prepare` before any work starts."""

from pathlib import Path
from typing import ClassVar

from pipeline.config.base import Sections, Seed, load_sections
from pipeline.config.carb import CarbParams
from pipeline.config.clip import ClipParams
from pipeline.config.dataset import DatasetParams
from pipeline.config.distillation import DistillationParams
from pipeline.config.eval import EvalParams, PicturesParams
from pipeline.config.relabel import RelabelParams
from pipeline.config.segmenter import SegmenterParams
from pipeline.config.train import TrainParams
from pipeline.config.views import AugmentParams, ViewsParams


class Params(Sections):
    """All sections; others are refused."""

    ignores_other_keys: ClassVar[bool] = False

    seed: Seed
    dataset: DatasetParams
    clip: ClipParams
    views: ViewsParams
    augment: AugmentParams
    segmenter: SegmenterParams
    relabel: RelabelParams
    carb: CarbParams
    train: TrainParams
    eval: EvalParams
    pictures: PicturesParams
    distillation: DistillationParams


def load_params(path: Path) -> Params:
    """Read and check a whole parameter file; see `load_sections`."""
    return load_sections(path, Params)
