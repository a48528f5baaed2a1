"""Links in a data set's folder: they are followed and reported."""

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import open_dataset
from pipeline.datasets.base import Dataset
from pipeline.datasets.collect import index_scenes, log_remarks, used_scenes
from pipeline.scenes.image_folder import link_lines, scan_folder


def save(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((4, 8, 3), np.uint8)).save(path)


def messages(dataset: Dataset, caplog: pytest.LogCaptureFixture) -> list[str]:
    with caplog.at_level(logging.INFO, logger="carb"):
        log_remarks(dataset, used_scenes(dataset))
    return [record.getMessage() for record in caplog.records]


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A user's own photos: one here, two on another disk."""
    root = tmp_path / "own"
    save(root / "a.jpg")
    (root / "classes.csv").write_text("class\nroad\ncar\n")
    for name in ("b", "trip/c"):
        save(tmp_path / f"disk/{name}.jpg")
    return root


def test_a_linked_folder_of_photos_is_read_and_reported(
    own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (own / "more").symlink_to(own.parent / "disk")
    dataset = open_dataset("folder", own)
    keys = [scene.key for scene in used_scenes(dataset)]
    assert keys == ["train/a", "train/more/b", "train/more/trip/c"]
    assert messages(dataset, caplog) == [f"{own}/more leads to {own.parent}/disk"]
    photo = index_scenes(dataset, used_scenes(dataset)).photos[1]
    assert photo.path(own) == own / "more/b.jpg"


def test_linked_files_are_reported_by_folder(own: Path, caplog: pytest.LogCaptureFixture) -> None:
    (own / "b.jpg").symlink_to(own.parent / "disk/b.jpg")
    dataset = open_dataset("folder", own)
    assert messages(dataset, caplog) == [f"{own}/b.jpg leads to {own.parent}/disk/b.jpg"]
    caplog.clear()
    (own / "d.jpg").symlink_to(own.parent / "disk/b.jpg")
    assert messages(dataset, caplog) == [f"{own}: 2 links lead into {own.parent}/disk"]


def test_links_within_the_folder_and_into_dvcs_cache_are_not_reported(own: Path) -> None:
    cached = own.parent / "cache/files/md5/ab" / ("0" * 30)
    cached.parent.mkdir(parents=True)
    shutil.copy(own / "a.jpg", cached)
    (own / "cached.jpg").symlink_to(cached)
    (own / "same.jpg").symlink_to(own / "a.jpg")
    assert link_lines(own, scan_folder(own).photos.values()) == []


def test_links_that_lead_up_or_to_a_folder_twice_are_not_followed(
    own: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(own / "trip/e.jpg")
    for name, target in {"loop": own, "up": own.parent, "trip/twin": own / "trip"}.items():
        (own / name).symlink_to(target)
    for name in ("x", "y"):
        (own / name).symlink_to(own.parent / "disk/trip")
    dataset = open_dataset("folder", own)
    keys = [scene.key for scene in used_scenes(dataset)]
    assert keys == ["train/a", "train/trip/e", "train/x/c"]
    lines = messages(dataset, caplog)
    for name in ("loop", "up", "trip/twin", "y"):
        assert any(line.startswith(f"{own}/{name}: leads to") for line in lines), lines


@pytest.mark.parametrize("inner", ["gtFine", "leftImg8bit/train"])
def test_cityscapes_may_lie_on_two_disks(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, inner: str
) -> None:
    root = tmp_path / "cityscapes"
    for split in ("train", "val"):
        save(root / f"leftImg8bit/{split}/ulm/ulm_1_leftImg8bit.png")
        save(root / f"gtFine/{split}/ulm/ulm_1_gtFine_labelIds.png")
    (tmp_path / "disk").mkdir()
    shutil.move(root / inner, tmp_path / "disk/there")
    (root / inner).symlink_to(tmp_path / "disk/there")
    dataset = open_dataset("cityscapes", root)
    assert [scene.key for scene in used_scenes(dataset)] == ["train/ulm_1", "val/ulm_1"]
    assert messages(dataset, caplog) == [f"{root / inner} leads to {tmp_path}/disk/there"]
