"""CamVid as its authors ship it: published splits, 32 colours reduced to 11 classes."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import load_scenes, open_dataset
from pipeline.datasets.camvid import COLOURS, VOID, split_of
from pipeline.scenes.classes import IGNORE_INDEX, LABEL_SPACES

CAMVID = Path(__file__).parents[3] / "shared" / "camvid"
NAMES = ["0001TP_006690", "0001TP_008550", "0006R0_f00930", "0016E5_07959", "Seq05VD_f00000"]
PIXELS = [[(128, 0, 192), (0, 64, 64), (0, 0, 0)], [(192, 0, 192), (192, 192, 0), (64, 0, 64)]]
CLASSES = [[3, 6, IGNORE_INDEX], [10, 5, 1]]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for folder in ("701_StillsRaw_full", "LabeledApproved_full"):
        (tmp_path / folder).mkdir()
    for name in NAMES:
        Image.new("RGB", (3, 2)).save(tmp_path / "701_StillsRaw_full" / f"{name}.png")
        mask = Image.fromarray(np.array(PIXELS, np.uint8))
        mask.save(tmp_path / "LabeledApproved_full" / f"{name}_L.png")
    (tmp_path / "701_StillsRaw_full/._0001TP_006690.png").write_text("stray")
    (tmp_path / "label_colors.txt").write_text("stray")
    return tmp_path


def test_photos_are_split_as_published(root: Path) -> None:
    keys = {
        split: [s.key for s in load_scenes("camvid", root, split)] for split in ("train", "val")
    }
    assert keys == {
        "train": ["train/0001TP_006690", "train/0006R0_f00930"],
        "val": ["val/0016E5_07959"],
    }
    test = load_scenes("camvid", root, "test")
    assert [scene.key for scene in test] == ["test/0001TP_008550", "test/Seq05VD_f00000"]
    assert test[0].mask == root / "LabeledApproved_full/0001TP_008550_L.png"


@pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not on this machine")
def test_the_rule_gives_the_photos_of_the_segnet_layout() -> None:
    for split in ("train", "val"):
        assert {split_of(path.stem) for path in (CAMVID / split).glob("*.png")} == {split}


def test_colours_become_classes_and_void_counts_nowhere(root: Path) -> None:
    scene = load_scenes("camvid", root, "val")[0]
    assert scene.mask is not None
    mask = open_dataset("camvid", root).read_mask(scene.mask)
    assert mask.dtype == np.uint8
    assert mask.tolist() == CLASSES


def test_the_32_colours_are_all_different() -> None:
    colours = [VOID, *(colour for group in COLOURS.values() for colour in group)]
    assert len(colours) == len(set(colours)) == 32
    assert list(COLOURS) == LABEL_SPACES["camvid"].names


def test_a_colour_that_is_not_in_the_table_is_named(root: Path) -> None:
    path = root / "LabeledApproved_full/0016E5_07959_L.png"
    Image.new("RGB", (3, 2), (1, 2, 3)).save(path)
    with pytest.raises(ValueError, match=r"_L\.png: holds the colour \(1, 2, 3\), which CamVid"):
        open_dataset("camvid", root).read_mask(path)


@pytest.mark.parametrize("name", ["holiday", "0016E5_x", "my_photo"])
def test_a_photo_that_is_not_named_as_camvids_is_refused(root: Path, name: str) -> None:
    Image.new("RGB", (3, 2)).save(root / f"701_StillsRaw_full/{name}.png")
    with pytest.raises(ValueError, match=rf"{name}\.png: no photo of CamVid is named so"):
        load_scenes("camvid", root, "train")
