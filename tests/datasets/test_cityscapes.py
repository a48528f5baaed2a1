"""Cityscapes as downloaded, in miniature: what is found, how ids are read, what is missing."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import load_scenes, open_dataset
from pipeline.datasets.base import Scene

IDS = np.array([[7, 0, 33, 26], [3, 24, 255, 1]], dtype=np.uint8)
TRAIN_IDS = [[0, 255, 18, 13], [255, 11, 255, 255]]
FRAMES = {
    "train": ["aachen/aachen_000000_000019", "ulm/ulm_000001_000019"],
    "val": ["munster/munster_000000_000019"],
    "test": ["berlin/berlin_000000_000019"],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Both archives unpacked side by side, with the files that are not for us."""
    for split, frames in FRAMES.items():
        for frame in frames:
            photo = tmp_path / "leftImg8bit" / split / f"{frame}_leftImg8bit.png"
            mask = tmp_path / "gtFine" / split / f"{frame}_gtFine_labelIds.png"
            for path in (photo, mask):
                path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (4, 2)).save(photo)
            Image.fromarray(IDS).save(mask)
            instances = mask.with_name(mask.name.replace("labelIds", "instanceIds"))
            Image.fromarray(IDS.astype(np.uint16) * 1000).save(instances)
            mask.with_name(mask.name.replace("labelIds.png", "polygons.json")).write_text("{}")
    stray = tmp_path / "leftImg8bit/train/aachen"
    (stray / "._aachen_000000_000019_leftImg8bit.png").write_text("stray")
    (stray / "Thumbs.db").write_text("stray")
    (tmp_path / "license.txt").write_text("stray")
    return tmp_path


def test_scenes_are_found_by_city_and_frame_with_their_masks_of_label_ids(root: Path) -> None:
    first, second = load_scenes("cityscapes", root, "train")
    assert first == Scene(
        root / "leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png",
        root / "gtFine/train/aachen/aachen_000000_000019_gtFine_labelIds.png",
        "train",
        "train/aachen_000000_000019",
    )
    assert second.key == "train/ulm_000001_000019"


def test_the_empty_masks_of_the_test_split_are_no_masks(root: Path) -> None:
    (scene,) = load_scenes("cityscapes", root, "test")
    assert (scene.key, scene.mask) == ("test/berlin_000000_000019", None)


def test_label_ids_become_train_ids_and_the_rest_counts_nowhere(root: Path) -> None:
    (scene,) = load_scenes("cityscapes", root, "val")
    assert scene.mask is not None
    assert open_dataset("cityscapes", root).read_mask(scene.mask).tolist() == TRAIN_IDS


def test_instance_ids_in_the_place_of_label_ids_are_refused(root: Path) -> None:
    path = next(root.rglob("*_instanceIds.png"))
    with pytest.raises(ValueError, match=r"a mask must have 8 bits a channel, found 16 or more"):
        open_dataset("cityscapes", root).read_mask(path)


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ("leftImg8bit", r"no folder leftImg8bit; unpack leftImg8bit_trainvaltest\.zip here$"),
        ("gtFine", r"no folder gtFine; unpack gtFine_trainvaltest\.zip here$"),
        ("gtFine/val", r"gtFine/val: no \*_gtFine_labelIds\.png .*; unpack gtFine_trainvaltest"),
    ],
)
def test_one_archive_alone_is_refused_with_the_name_of_the_other(
    root: Path, missing: str, sentence: str
) -> None:
    (root / missing).rename(root / "elsewhere")
    with pytest.raises(ValueError, match=sentence):
        load_scenes("cityscapes", root, "val")


def test_coarse_masks_in_the_place_of_fine_ones_are_refused(root: Path) -> None:
    (root / "gtFine").rename(root / "gtCoarse")
    with pytest.raises(ValueError, match=r"no folder gtFine: only gtCoarse, .*; unpack gtFine_"):
        load_scenes("cityscapes", root, "train")
