"""What a command does not read of a folder is counted and named, in every data set."""

import json
import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import open_dataset
from pipeline.datasets.collect import tell_of_data, used_scenes
from pipeline.deploy.folder import folder_scenes
from pipeline.deploy.sources import find_sources


def save(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.fromarray(np.zeros((4, 8), np.uint8)).save(path)
        else:
            path.touch()


def told(name: str, root: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    dataset = open_dataset(name, root)
    caplog.clear()
    with caplog.at_level(logging.INFO, logger="carb"):
        tell_of_data(dataset, used_scenes(dataset))
    return [
        message.replace(f"{root}/", "").replace(f"{root}", "root") for message in caplog.messages
    ]


def test_cityscapes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split in ("train", "val"):
        save(tmp_path, f"leftImg8bit/{split}/ulm/a_leftImg8bit.png")
        for kind in ("labelIds", "color", "instanceIds"):
            save(tmp_path, f"gtFine/{split}/ulm/a_gtFine_{kind}.png")
    save(tmp_path, "leftImg8bit/test/ulm/x_leftImg8bit.png", "README", "license.txt")
    assert told("cityscapes", tmp_path, caplog) == []
    save(tmp_path, "leftImg8bit/train/ulm/b.png", "leftImg8bit/train_extra/ulm/c_leftImg8bit.png")
    save(tmp_path, "leftImg8bit/val/ulm/d_leftImg8bit.png", "gtFine/val/ulm/e_gtFine_labelIds.png")
    assert told("cityscapes", tmp_path, caplog) == [
        "leftImg8bit/train: files not named */*_leftImg8bit.png, not read (1): ulm/b.png",
        "gtFine/val: masks of no photo, not read (1): e_gtFine_labelIds.png",
        "leftImg8bit/train_extra: 1 pictures in it were not read",
        "1 of 2 val photos have no mask: val/d",
    ]


def test_camvid(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for split in ("train", "val", "test"):
        save(tmp_path, f"{split}/a.png", f"{split}annot/a.png")
    assert told("camvid", tmp_path, caplog) == []
    save(tmp_path, "train/b.png", "train/c.jpg", "valannot/d.png", "train_labels/a_L.png")
    assert told("camvid", tmp_path, caplog) == [
        "train: files of no photo, not read (1): c.jpg",
        "valannot: files of no photo, not read (1): d.png",
        "train_labels: 1 pictures in it were not read",
        "1 of 2 train photos have no mask: train/b",
    ]


def test_camvid_as_on_kaggle_is_named(tmp_path: Path) -> None:
    save(tmp_path, "train/a.png", "train_labels/a_L.png", "valid/b.png", "valid_labels/b_L.png")
    says = "no photos of split 'val' found; .*; there is 'train', 'train_labels', 'valid', 'valid_l"
    with pytest.raises(ValueError, match=says):
        used_scenes(open_dataset("camvid", tmp_path))


def test_the_original_camvid(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("0016E5_07959", "0016E5_08460", "Seq05VD_f00000"):
        save(tmp_path, f"701_StillsRaw_full/{name}.png", f"LabeledApproved_full/{name}_L.png")
    assert told("camvid", tmp_path, caplog) == []
    save(tmp_path, "LabeledApproved_full/0016E5_09999_L.png")
    lines = told("camvid", tmp_path, caplog)
    assert lines == ["LabeledApproved_full: files of no photo, not read (1): 0016E5_09999_L.png"]


def test_wilddash2(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = [f"ab{number:04d}" for number in range(60)]
    for name in names:
        save(tmp_path, f"images/{name}.jpg", f"panoptic/{name}.png")
    entries = [{"file_name": f"{name}.png", "segments_info": []} for name in names[1:]]
    (tmp_path / "panoptic.json").write_text(json.dumps({"annotations": entries}))
    why = "files that panoptic.json does not name, not read (1)"
    lines = [f"images: {why}: ab0000.jpg", f"panoptic: {why}: ab0000.png"]
    assert told("wilddash2", tmp_path, caplog) == lines


def test_predict(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, "in/a.png", "in/b.heic", "in/c.MP4", "in/d.txt", "in/@eaDir/a.png")
    save(tmp_path, "in/out/masks/a.png", "in/out/note.txt")
    photos, videos = find_sources([tmp_path / "in"], tmp_path / "in/out", frames=False)
    assert (list(photos), list(videos)) == (["a"], ["c"])
    assert caplog.messages == [
        f"{tmp_path}/in: 2 files of other kinds were not read: .heic 1, .txt 1",
        f"{tmp_path}/in: folders of thumbnails or deleted files were not read: @eaDir 1",
    ]


def test_eval_of_a_folder(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    save(tmp_path, "in/a.png", "in/b.mp4", "in/masks/a.png", "in/masks/z.png")
    folder_scenes(tmp_path / "in", tmp_path / "in/masks", out=tmp_path / "out")
    assert caplog.messages == [
        f"{tmp_path}/in: 1 file of another kind was not read: .mp4 1",
        f"{tmp_path}/in/masks: files that are not masks of the photos, not read (1): z.png",
    ]
