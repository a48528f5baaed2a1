"""Scores of a segmenter and of pseudo-masks, by hand on a 2x3 image."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.datasets.base import Scene
from pipeline.evaluation.pseudo_masks import score_store
from pipeline.evaluation.segmenter import (
    SEGMENTER,
    RegionScore,
    SegmenterScore,
    region_class_rows,
    score_segmenter,
)
from pipeline.segmenter.inference import Segmenter, TestTimeOptions

CLIP = np.array([[0, 0, 1], [1, 2, 2]])
VOTE = np.array([[0, 1, 1], [1, 0, 2]])
MASK = np.array([[0, 1, 1], [0, 0, 255]])


def test_a_region_counts_by_the_class_of_the_pseudo_mask() -> None:
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
    """Predicts `VOTE` for every 2x3 image."""

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
            test_time=TestTimeOptions(),
        )
        for scenes in ([scene, unlabelled], [scene])
    )
    assert score.confusion.tolist() == [[2, 1, 0], [0, 2, 0], [0, 0, 0]]
    assert score.photo_iou["val/a"] == pytest.approx((2 / 3 + 2 / 3) / 2)
    assert score.regions["reliable"].counts[0].tolist() == [1, 2, 0]
    assert score.regions["noisy"].counts.tolist() == [[1, 0, 1], [0, 0, 0], [1, 0, 1]]
    assert (alone.confusion == 2 * score.confusion).all()
    for one in (alone, score):  # levels are compared on images with labels only
        assert one.per_level[SEGMENTER].tolist() == score.confusion.tolist()
        assert one.per_level["global"].tolist() == [[1, 1, 1], [1, 1, 0], [0, 0, 0]]


def test_levels_are_scored_where_they_agree_and_elsewhere(tmp_path: Path, store_of) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    grids = {
        name: {"val/a": np.eye(3)[classes].transpose(2, 0, 1)}
        for name, classes in (("global", CLIP), ("local", VOTE))
    }
    scene = Scene(tmp_path / "a.png", tmp_path / "mask", "val", "val/a")
    matrices, regions = score_store(
        store_of(grids, {"val/a": (2, 3)}),
        [scene, Scene(tmp_path / "a.png", tmp_path / "mask", "val", "val/unlabelled")],
        {"val/a": np.array([True, True, True])},
        read_mask=lambda path: MASK,
    )
    assert matrices["global"].tolist() == [[1, 1, 1], [1, 1, 0], [0, 0, 0]]
    assert matrices["local"].tolist() == [[2, 1, 0], [0, 2, 0], [0, 0, 0]]
    agree = {"share": 3 / 5, "global accuracy": 2 / 3, "local accuracy": 2 / 3}
    differ = {"share": 2 / 5, "global accuracy": 0.0, "local accuracy": 1.0}
    assert regions == {"levels agree": agree, "levels differ": differ}
