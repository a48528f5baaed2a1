"""Pseudo-mask panels: which classes compete, confidence, order of the cells."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipeline.datasets.base import Scene
from pipeline.report.panels import evenly_spaced
from pipeline.report.pseudo_mask_panels import level_masks, pseudo_panels, top2_margin

PALETTE = np.array([[200, 0, 0], [0, 100, 0], [0, 0, 150]], np.uint8)
GLOBAL = np.array([[[3.0, 0.0]], [[1.0, 2.0]], [[2.0, 5.0]]])  # [3, 1, 2]: classes 0 and 2
LOCAL = np.array([[[3.0, 0.0]], [[1.0, 7.0]], [[2.0, 5.0]]])  # classes 0 and 1


def scene(folder: Path, key: str = "val/a", *, annotated: bool = False) -> Scene:
    file = folder / f"{key.replace('/', '-')}.png"
    Image.new("RGB", (320, 160), (90, 90, 90)).save(file)
    return Scene(file, file if annotated else None, "val", key)


def no_mask(path: Path) -> np.ndarray:
    raise AssertionError(path)


def colours(sheet: Image.Image, left: int) -> set[tuple[int, int, int]]:
    """Of a picture below heading, key and titles."""
    picture = np.asarray(sheet)[98 : 98 + 135, left : left + 270]
    return {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}


def test_the_margin_is_that_of_the_best_two_of_the_classes_that_compete() -> None:
    logits = torch.from_numpy(GLOBAL)
    assert top2_margin(logits, torch.tensor([True, True, True]), (1, 2)).tolist() == [[1, 3]]
    assert top2_margin(logits, torch.tensor([True, True, False]), (1, 2)).tolist() == [[2, 2]]
    assert np.isposinf(top2_margin(logits, torch.tensor([False, True, False]), (3, 4))).all()


def test_masks_of_each_level_are_ignored_where_no_label_is_known(store_of) -> None:
    store = store_of({"global": {"val/a": GLOBAL}, "local": {"val/a": LOCAL}}, {"val/a": (1, 2)})
    some = level_masks(store, "val/a", torch.tensor([True, True, False]), (1, 2))
    assert [mask.tolist() for mask in some] == [[[0, 1]], [[0, 1]]]
    every = level_masks(store, "val/a", torch.ones(3, dtype=torch.bool), (1, 2))
    assert [mask.tolist() for mask in every] == [[[0, 2]], [[0, 1]]]
    none = level_masks(store, "val/a", None, (1, 2))
    assert [mask.tolist() for mask in none] == [[[255, 255]], [[255, 255]]]


def test_without_labels_all_classes_compete_and_local_changes_are_shown(
    tmp_path: Path, store_of
) -> None:
    store = store_of(
        {"global": {"val/a": GLOBAL}, "local": {"val/a": LOCAL}}, {"val/a": (160, 320)}
    )
    sheet = pseudo_panels([scene(tmp_path)], store, palette=PALETTE, labels=None, read_mask=no_mask)
    red, green, blue = (tuple(colour) for colour in PALETTE.tolist())
    lefts = [8 + column * (270 + 8) for column in range(5)]
    assert sheet.width == 8 + 5 * 278
    drawn = [colours(sheet, left) for left in lefts]
    assert drawn[0] >= {(90, 90, 90)}
    assert {red, blue} <= drawn[1]
    assert green not in drawn[1]
    assert {red, green} <= drawn[2]
    assert green in drawn[3]
    assert red not in drawn[3]  # both levels agree


def test_one_level_changes_nothing_and_a_human_mask_comes_last(tmp_path: Path, store_of) -> None:
    store = store_of({"global": {"val/a": GLOBAL}}, {"val/a": (160, 320)})
    human = np.ones((160, 320), np.uint8)
    sheet = pseudo_panels(
        [scene(tmp_path, annotated=True)],
        store,
        palette=PALETTE,
        labels={"val/a": np.array([True, False, False])},  # one class only: infinite confidence
        read_mask=lambda path: human,
    )
    assert sheet.width == 8 + 4 * (320 + 8)
    last = colours(sheet, 8 + 3 * 328)
    assert tuple(PALETTE[1].tolist()) in last


def test_selected_items_are_evenly_spaced() -> None:
    for count, found in ((1, "a"), (3, "ace"), (9, "abcde")):
        assert "".join(evenly_spaced("abcde", count)) == found
