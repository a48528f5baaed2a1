"""Regions of look-alikes, judged as pictures."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from PIL import Image

from pipeline.relabelling.look_alikes import LookAlikes

ROAD, WALKER, RIDER = range(3)
CELL = 10  # pixels


def colour_clip() -> Any:
    """Embeds a picture as its mean red and blue: red is a walker, blue a rider."""

    def embed(pixels: torch.Tensor) -> torch.Tensor:
        return pixels.mean(dim=(2, 3))[:, [0, 2]]

    return SimpleNamespace(
        image_size=(8, 8), mean=(0, 0, 0), std=(1, 1, 1), device="cpu", embed_images=embed
    )


TEXT = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 1.0]])


def scene() -> tuple[torch.Tensor, Image.Image]:
    """Two figures on a road, both labelled as walkers and riders patch by patch; one is blue."""
    logits = torch.zeros(3, 6, 10)
    logits[ROAD] = 1
    pixels = np.zeros((60, 100, 3), np.uint8)
    for columns, colour in ((slice(1, 3), 0), (slice(6, 9), 2)):
        logits[WALKER, 1:3, columns] = 3
        logits[RIDER, 3:5, columns] = 2
        left, right = columns.start * CELL, columns.stop * CELL
        pixels[CELL : 5 * CELL, left:right, colour] = 200
    return logits, Image.fromarray(pixels)


def masks_of(present: list[bool], groups: list[list[int]]) -> np.ndarray:
    logits, image = scene()
    judge = LookAlikes(colour_clip(), TEXT, groups, brightness=None)
    before = logits.clone()
    judged = judge(logits, image, torch.tensor(present))
    assert torch.equal(logits, before)
    return judged.argmax(dim=0).numpy()


def test_each_region_gets_the_class_of_its_picture():
    mask = masks_of([True, True, True], [[WALKER, RIDER]])
    assert (mask[1:5, 1:3] == WALKER).all()
    assert (mask[1:5, 6:9] == RIDER).all()
    assert (mask[0] == ROAD).all()


def test_without_two_present_classes_there_is_nothing_to_judge():
    before = scene()[0].argmax(dim=0).numpy()
    assert (masks_of([True, True, False], [[WALKER, RIDER]]) == before).all()
    assert (masks_of([True, True, True], []) == before).all()


def test_small_regions_are_left_as_they_are(monkeypatch):
    monkeypatch.setattr("pipeline.relabelling.look_alikes.SMALLEST", 0.15)
    mask = masks_of([True, True, True], [[WALKER, RIDER]])
    assert (mask[3:5, 1:3] == RIDER).all()  # 8 of 60 cells
    assert (mask[1:5, 6:9] == RIDER).all()  # 12 of 60
