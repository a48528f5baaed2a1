"""WildDash2 as downloaded, in miniature: segments become classes, and each gap is named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import load_scenes, open_dataset
from pipeline.datasets.wilddash2 import CATEGORY_IDS, split_of
from pipeline.scenes.classes import IGNORE_INDEX, LABEL_SPACES

NAMES = [f"aa{number:04d}_100000" for number in range(12)]
# Segment ids beyond one byte: category 26 is a car, 0 is void, 38 road marking, 9 parking.
SEGMENTS = {5: 26, 70_000: 38, 300: 9}
IDS = np.array([[5, 5, 70_000], [300, 0, 5]])
CLASSES = [[15, 15, 24], [IGNORE_INDEX, IGNORE_INDEX, 15]]


def write_json(root: Path, segments: dict[int, int], names: list[str]) -> None:
    info: list[dict[str, Any]] = [
        {"id": key, "category_id": value} for key, value in segments.items()
    ]
    content = {
        "images": [{"id": name, "file_name": f"{name}.jpg"} for name in names],
        "annotations": [
            {"image_id": name, "file_name": f"{name}.png", "segments_info": info} for name in names
        ],
        "categories": [],
    }
    (root / "panoptic.json").write_text(json.dumps(content))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("images", "panoptic"):
        (tmp_path / folder).mkdir()
    colours = np.stack([IDS % 256, IDS // 256 % 256, IDS // 65536], axis=-1).astype(np.uint8)
    for name in NAMES:
        Image.new("RGB", (3, 2)).save(tmp_path / "images" / f"{name}.jpg")
        Image.fromarray(colours).save(tmp_path / "panoptic" / f"{name}.png")
    (tmp_path / "images/stray.jpg").write_text("stray")
    write_json(tmp_path, SEGMENTS, NAMES)
    return tmp_path


def test_each_photo_is_of_one_split_by_its_name_alone(root: Path) -> None:
    train, val = (load_scenes("wilddash2", root, split) for split in ("train", "val"))
    assert sorted(scene.image.stem for scene in train + val) == NAMES
    assert [scene.key for scene in val] == [
        f"val/{name}" for name in NAMES if split_of(name) == "val"
    ]
    shares = [split_of(f"photo {number}") for number in range(2000)]
    assert 0.12 < shares.count("val") / len(shares) < 0.18
    assert split_of("aa0000_100000") == split_of(NAMES[0])


def test_segments_become_classes_and_what_has_no_class_counts_nowhere(root: Path) -> None:
    read = open_dataset("wilddash2", root).read_mask
    mask = read(root / "panoptic" / f"{NAMES[0]}.png")
    assert mask.dtype == np.uint8
    assert mask.tolist() == CLASSES


def test_every_class_has_a_category() -> None:
    assert len(set(CATEGORY_IDS)) == len(LABEL_SPACES["wilddash2"].classes) == 25


def test_a_photo_that_the_json_names_and_is_missing_is_named(root: Path) -> None:
    split = split_of(NAMES[3])
    (root / "images" / f"{NAMES[3]}.jpg").unlink()
    with pytest.raises(ValueError, match=rf"json: names images/{NAMES[3]}\.jpg, which is missing$"):
        load_scenes("wilddash2", root, split)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"panoptic\.json: no such file; unpack wd_public_02\.zip here$"),
        ("{", r"panoptic\.json: not readable as COCO panoptic annotations \(JSONDecodeError: .*\)"),
        ("{}", r"panoptic\.json: not readable as COCO panoptic annotations \(KeyError: .*\)"),
    ],
)
def test_a_json_that_is_none_is_refused(root: Path, content: str | None, sentence: str) -> None:
    (root / "panoptic.json").unlink()
    if content is not None:
        (root / "panoptic.json").write_text(content)
    with pytest.raises(ValueError, match=sentence):
        load_scenes("wilddash2", root, "train")


def test_a_segment_without_a_category_is_named(root: Path) -> None:
    write_json(root, {5: 26, 300: 9}, NAMES)
    read = open_dataset("wilddash2", root).read_mask
    with pytest.raises(ValueError, match=r"holds segment 70000, which panoptic\.json does not"):
        read(root / "panoptic" / f"{NAMES[0]}.png")


def test_a_mask_without_an_entry_and_a_mask_of_one_channel_are_refused(root: Path) -> None:
    read = open_dataset("wilddash2", root).read_mask
    with pytest.raises(ValueError, match=r"panoptic\.json: has no entry for other\.png"):
        read(root / "panoptic/other.png")
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(root / "panoptic" / f"{NAMES[0]}.png")
    with pytest.raises(ValueError, match="a panoptic mask must be RGB of 8 bits, found uint8"):
        read(root / "panoptic" / f"{NAMES[0]}.png")
