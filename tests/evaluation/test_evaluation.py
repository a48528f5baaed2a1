"""Scores of regions, worked by hand on a 2x3 picture."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.datasets.base import Scene
from pipeline.evaluation.segmenter import (
    SEGMENTER,
    RegionScore,
    SegmenterScore,
    region_class_rows,
    score_segmenter,
)
from pipeline.report.segmenter_panels import ranked
from pipeline.segmenter.inference import Segmenter, TestTimeOptions

CLIP = np.array([[0, 0, 1], [1, 2, 2]])
VOTE = np.array([[0, 1, 1], [1, 0, 2]])
MASK = np.array([[0, 1, 1], [0, 0, 255]])


def test_a_region_counts_by_the_first_map_s_class() -> None:
    region = RegionScore(3)
    region.add(np.array([[True, True, False], [True, True, False]]), CLIP, VOTE, MASK)
    assert region.counts.tolist() == [[2, 1, 1], [1, 0, 0], [2, 0, 1]]
    assert region.pixels == 4
    metrics = region.metrics(8)
    assert metrics == {"share": 0.5, "CLIP accuracy": 0.25, "segmenter accuracy": 0.75}
    assert math.isnan(RegionScore(3).metrics(8)["CLIP accuracy"])


def test_classes_are_listed_with_their_noisy_share() -> None:
    score = SegmenterScore(np.zeros((3, 3), np.int64))
    score.regions = {"reliable": RegionScore(3), "noisy": RegionScore(3)}
    valid = MASK != 255
    score.regions["reliable"].add(valid & (CLIP == VOTE), CLIP, VOTE, MASK)
    score.regions["noisy"].add(valid & (CLIP != VOTE), CLIP, VOTE, MASK)
    road, car, sky = region_class_rows(score, ["road", "car", "sky"])
    assert road == {
        "CLIP's class": "road",
        "noisy share": 0.5,
        "CLIP accuracy, noisy": 0,
        "segmenter accuracy, noisy": 1,
    }
    assert car["noisy share"] == 0
    assert math.isnan(car["CLIP accuracy, noisy"])
    assert (sky["noisy share"], sky["segmenter accuracy, noisy"]) == (1, 1)


class Votes(nn.Module):
    """Says `VOTE` of every 2x3 picture."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.0))

    def forward(self, images: Tensor) -> Tensor:
        votes = torch.nn.functional.one_hot(torch.from_numpy(VOTE), 3).permute(2, 0, 1).float()
        return self.factor * votes.expand(len(images), -1, -1, -1)


def test_regions_are_split_among_present_classes(tmp_path: Path, store_of) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    logits = np.eye(3)[CLIP].transpose(2, 0, 1)  # [3, 2, 3]
    store = store_of({"global": {"val/a": logits}}, {"val/a": (2, 3)})
    segmenter = Segmenter(
        model=Votes().eval(),
        classes=["road", "car", "sky"],
        palette=np.zeros((3, 3), np.uint8),
        mean=(0, 0, 0),
        std=(1, 1, 1),
        base_size=(2, 3),
        stride=1,
        extra={},
    )
    scene = Scene(tmp_path / "a.png", tmp_path / "mask", "val", "val/a")
    unlabelled = Scene(tmp_path / "a.png", tmp_path / "mask", "val", "val/b")
    alone, score = (
        score_segmenter(
            segmenter,
            scenes,
            read_mask=lambda path: MASK,
            store=store,
            labels={"val/a": np.array([True, True, True])},
            presentation=TestTimeOptions(),
        )
        for scenes in ([scene, unlabelled], [scene])
    )
    assert score.confusion.tolist() == [[2, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert score.photo_iou["val/a"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert score.regions["reliable"].counts[0].tolist() == [1, 2, 0]
    assert score.regions["noisy"].counts.tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 1]]
    assert (alone.confusion == 2 * score.confusion).all()
    for one in (alone, score):  # pseudo-masks stand beside the segmenter on photos with labels only
        assert one.per_level[SEGMENTER].tolist() == score.confusion.tolist()
        assert one.per_level["global"].tolist() == [[1, 1, 1], [1, 1, 0], [0, 0, 0]]


def test_photos_are_ranked_by_their_own_figure(tmp_path: Path) -> None:
    own = {"a": 0.5, "b": math.nan, "c": 0.1, "d": 0.9, "e": 0.5, "f": 0.3}
    scenes = [Scene(tmp_path, None, "val", key) for key in own]

    def keys(count: int) -> dict[str, str]:
        found = ranked(scenes, own, count)
        return {name: "".join(scene.key for scene in few) for name, few in found.items()}

    assert keys(2) == {"best": "da", "median": "ae", "worst": "cf"}
    assert keys(9) == {"best": "daefc", "median": "daefc", "worst": "cfead"}
    assert ranked(scenes[1:2], own, 3) == {}
