"""Classes that a training lost are found without human masks, and remedies are named."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from pipeline.segmenter.inference import Segmenter
from pipeline.training.crops import TrainingPhoto
from pipeline.training.missing_classes import (
    PHOTOS_PER_CLASS,
    missing_classes,
    missing_summary,
    photos_of_classes,
)
from tests.helpers.small_training import changed

CLIP = np.array([[0, 0, 1], [1, 2, 2]])  # class 3 is in no pseudo-mask


class Predicts(nn.Module):
    """The same class in all pixels of a column: 0, 1, 1."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(1.0))

    def forward(self, images: Tensor) -> Tensor:
        classes = torch.tensor([[0, 1, 1], [0, 1, 1]])
        votes = nn.functional.one_hot(classes, 4).permute(2, 0, 1).float()
        return self.factor * votes.expand(len(images), -1, -1, -1)


def test_a_class_of_the_pseudo_masks_that_is_not_predicted_is_missing(
    tmp_path: Path, store_of
) -> None:
    Image.new("RGB", (3, 2)).save(tmp_path / "a.png")
    logits = np.eye(4)[CLIP].transpose(2, 0, 1)  # [4, 2, 3]
    store = store_of({"global": {"train/a": logits}}, {"train/a": (2, 3)})
    palette, zero = np.zeros((4, 3), np.uint8), (0.0,) * 3
    names = ["road", "car", "rider", "kite"]
    model = Predicts().eval()
    segmenter = Segmenter(model, names, palette, zero, (1.0,) * 3, (2, 3), 1, extra={})
    for present, missing in (([1, 1, 1, 1], ["rider"]), ([1, 1, 0, 1], [])):
        photo = TrainingPhoto("train/a", tmp_path / "a.png", (2, 3), np.array(present, bool))
        assert missing_classes(segmenter, store, [photo]) == missing


def test_the_message_names_parameters_that_act(params) -> None:
    def message(**carb: object) -> str:
        sections = changed(params, carb={"enabled": True, **carb})
        return str(
            missing_summary(["rider"], 7, carb=sections.carb, train=sections.train)["message"]
        )

    values = {"warmup_steps": None, "warmup_share": 0.5, "min_weight": 0.25, "weight": None}
    assert "7 training photos contain rider, " in message(**values)
    assert "carb.warmup_share (0.5) or carb.min_weight (0.25) in params" in message(**values)
    assert "carb.warmup_steps (3) or carb.weight (0) in" in message(warmup_steps=3, weight=0.0)
    assert "carb" not in message(enabled=False)
    whole = missing_summary([], 7, carb=params.carb, train=params.train)
    assert whole == {"classes": [], "photos": 7, "message": ""}


def test_photos_of_rare_classes_are_checked_too(tmp_path: Path) -> None:
    labels = np.zeros((100, 2), bool)
    labels[:, 0], labels[58, 1] = True, True
    photos = [TrainingPhoto(str(n), tmp_path, (2, 3), row) for n, row in enumerate(labels)]
    keys = [photo.key for photo in photos_of_classes(photos)]
    assert len(keys) == PHOTOS_PER_CLASS + 1
    assert {"0", "58", "99"} <= set(keys)
