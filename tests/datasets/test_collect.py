"""What is collected of a data set: image-level labels, remarks, and the manifest of its files."""

import json
import logging
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config.dataset import DatasetParams
from pipeline.datasets import collect, open_dataset
from pipeline.datasets.base import Scene, read_scene_mask
from pipeline.datasets.collect import (
    collect_image_labels,
    dataset_manifest,
    log_remarks,
    used_scenes,
)
from pipeline.deploy.score_folder import folder_scenes
from pipeline.deploy.sources import find_sources
from pipeline.scenes.image_labels import write_image_labels

CAMVID = open_dataset("camvid", Path())
Ids = list[list[int]]


@pytest.fixture(autouse=True)
def all_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "carb")


def scene_of(folder: Path, key: str, ids: Ids | None) -> Scene:
    """A photo of 2x4 pixels, with a mask of these ids, if any."""
    split, name = key.split("/")
    image, mask = folder / split / f"{name}.png", folder / f"{split}annot" / f"{name}.png"
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 2)).save(image)
    if ids is not None:
        Image.fromarray(np.array(ids, dtype=np.uint8)).save(mask)
    return Scene(image, None if ids is None else mask, split, key)


def labels_of(
    folder: Path, *scenes: Scene, named: str | None = None, min_pixels: int = 2
) -> dict[str, list[int]]:
    file = None if named is None else str(folder / named)
    params = DatasetParams(
        name="camvid", root=str(folder), image_labels=file, min_pixels=min_pixels
    )
    labels = collect_image_labels(list(scenes), CAMVID, params)
    return {key: np.flatnonzero(row).tolist() for key, row in labels.items()}


@pytest.mark.parametrize(("min_pixels", "classes"), [(1, [0, 3, 10]), (2, [0, 3]), (3, [0])])
def test_a_class_is_present_from_min_pixels_on(
    tmp_path: Path, min_pixels: int, classes: list[int], caplog: pytest.LogCaptureFixture
) -> None:
    scene = scene_of(tmp_path, "train/a", [[0, 0, 0, 10], [3, 3, 11, 255]])
    void = scene_of(tmp_path, "val/b", [[11] * 4] * 2)
    without = scene_of(tmp_path, "train/c", None)
    found = labels_of(tmp_path, scene, void, without, min_pixels=min_pixels)
    assert found == {"train/a": classes}
    source = f"simulated from 2 human masks (dataset.min_pixels {min_pixels})"
    assert caplog.messages[0] == f"image labels: {source}"
    assert caplog.messages[-1] == "image labels: val/b has no class; left out"
    assert "none of 2 masks contains building, " in caplog.messages[-2]


def test_a_mask_of_another_size_than_its_photo_is_refused(tmp_path: Path) -> None:
    scene = scene_of(tmp_path, "train/a", [[0, 1, 2]])
    sentence = (
        f"{scene.mask}: is 3x1 pixels, but its photo a.png is 4x2; export the mask at the photo's "
        "size"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        labels_of(tmp_path, scene)
    with pytest.raises(ValueError, match=r"a\.png: has no human mask; add one or leave the photo"):
        read_scene_mask(scene_of(tmp_path, "train/a", None), CAMVID.read_mask)


def test_labels_of_a_file_are_used_and_no_mask_is_opened(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    scenes = [scene_of(tmp_path, key, [[0] * 4] * 2) for key in ("train/a", "train/b", "val/c")]
    for scene in scenes:
        assert scene.mask is not None
        scene.mask.write_text("not a mask")
    row = np.arange(11) == 4
    rows = {"train/a": row, "train/b": row & ~row}
    write_image_labels(tmp_path / "x.csv", rows, CAMVID.label_space.names)
    np.save(tmp_path / "x.npy", {"train/a": row.astype(float)}, allow_pickle=True)  # type: ignore[arg-type]
    for name in ("x.csv", "x.npy"):
        assert labels_of(tmp_path, *scenes, named=name) == {"train/a": [4]}
    assert caplog.messages == [
        f"image labels: from {tmp_path}/x.csv",  # validation photos need no labels
        "image labels: train/b has no class; left out",
        f"image labels: from the authors' file {tmp_path}/x.npy",
        f"image labels: {tmp_path}/x.npy has no line for 1 training photos, left out: train/b",
    ]


@pytest.mark.parametrize("ids", [None, [[11] * 4] * 2])
def test_no_usable_training_photo_is_an_error(tmp_path: Path, ids: Ids | None) -> None:
    scenes = [scene_of(tmp_path, "train/a", ids), scene_of(tmp_path, "val/b", [[0] * 4] * 2)]
    with pytest.raises(ValueError, match="no training photo has an image-level label; name a file"):
        labels_of(tmp_path, *scenes)


def save(root: Path, *names: str) -> None:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".png":
            Image.new("L", (8, 4)).save(path)
        else:
            path.touch()


def remarks(name: str, root: Path, caplog: pytest.LogCaptureFixture) -> list[str]:
    dataset = open_dataset(name, root)
    caplog.clear()
    log_remarks(dataset, used_scenes(dataset))
    return [message.replace(f"{root}/", "") for message in caplog.messages]


def test_unread_files_of_cityscapes_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for split in ("train", "val"):
        save(tmp_path, f"leftImg8bit/{split}/ulm/a_leftImg8bit.png")
        for kind in ("labelIds", "color", "instanceIds"):
            save(tmp_path, f"gtFine/{split}/ulm/a_gtFine_{kind}.png")
    save(tmp_path, "leftImg8bit/test/ulm/x_leftImg8bit.png", "README", "license.txt")
    assert remarks("cityscapes", tmp_path, caplog) == []
    save(tmp_path, "leftImg8bit/train/ulm/b.png", "leftImg8bit/train_extra/ulm/c_leftImg8bit.png")
    save(tmp_path, "leftImg8bit/val/ulm/d_leftImg8bit.png", "gtFine/val/ulm/e_gtFine_labelIds.png")
    assert remarks("cityscapes", tmp_path, caplog) == [
        "leftImg8bit/train: files not named */*_leftImg8bit.png, not read (1): ulm/b.png",
        "gtFine/val: masks of no photo, not read (1): e_gtFine_labelIds.png",
        "leftImg8bit/train_extra: 1 images in it were not read",
        "1 of 2 val photos have no mask: val/d",
    ]


def test_unread_files_of_camvid_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for split in ("train", "val", "test"):
        save(tmp_path, f"{split}/a.png", f"{split}annot/a.png")
    assert remarks("camvid", tmp_path, caplog) == []
    save(tmp_path, "train/b.png", "train/c.jpg", "valannot/d.png", "train_labels/a_L.png")
    assert remarks("camvid", tmp_path, caplog) == [
        "train: files of no photo, not read (1): c.jpg",
        "valannot: files of no photo, not read (1): d.png",
        "train_labels: 1 images in it were not read",
        "1 of 2 train photos have no mask: train/b",
    ]
    for name in ("0016E5_07959", "0016E5_08460", "Seq05VD_f00000"):  # the original layout
        save(tmp_path, f"o/701_StillsRaw_full/{name}.png", f"o/LabeledApproved_full/{name}_L.png")
    assert remarks("camvid", tmp_path / "o", caplog) == []
    save(tmp_path, "o/LabeledApproved_full/0016E5_09999_L.png")
    lines = remarks("camvid", tmp_path / "o", caplog)
    assert lines == ["LabeledApproved_full: files of no photo, not read (1): 0016E5_09999_L.png"]
    (tmp_path / "val").rename(tmp_path / "valid")  # as on Kaggle
    says = "no photos of split 'val' found; .*; found 'o', 'test', 'testannot', 'train', "
    with pytest.raises(ValueError, match=says):
        used_scenes(open_dataset("camvid", tmp_path))


def test_unread_files_of_wilddash2_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = [f"ab{number:04d}" for number in range(60)]
    for name in names:
        save(tmp_path, f"images/{name}.jpg", f"panoptic/{name}.png")
    entries = [{"file_name": f"{name}.png", "segments_info": []} for name in names[1:]]
    (tmp_path / "panoptic.json").write_text(json.dumps({"annotations": entries}))
    why = "files that panoptic.json does not name, not read (1)"
    lines = [f"images: {why}: ab0000.jpg", f"panoptic: {why}: ab0000.png"]
    assert remarks("wilddash2", tmp_path, caplog) == lines


def test_unread_files_of_predict_and_eval_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    save(tmp_path, "in/a.png", "in/b.heic", "in/c.MP4", "in/d.txt", "in/@eaDir/a.png")
    save(tmp_path, "in/out/masks/a.png", "in/out/note.txt")
    photos, videos = find_sources([tmp_path / "in"], tmp_path / "in/out", frames=False)
    assert (list(photos), list(videos)) == (["a"], ["c"])
    save(tmp_path, "x/a.png", "x/b.mp4", "x/masks/a.png", "x/masks/z.png")
    folder_scenes(tmp_path / "x", tmp_path / "x/masks", out=tmp_path / "out")
    *messages, last = caplog.messages
    assert messages == [
        f"{tmp_path}/in: 2 files of other kinds were not read: .heic 1, .txt 1",
        f"{tmp_path}/in: folders of thumbnails or deleted files were not read: @eaDir 1",
        f"{tmp_path}/x: 1 file of another kind was not read: .mp4 1",
    ]
    assert last.startswith(f"{tmp_path}/x/masks: files that are ")
    assert last.endswith(", not read (1): z.png")


def own_photos(root: Path) -> Path:
    save(root, "images/a.png", "images/b/c.png", "masks/a.png", "data.zip")
    (root / "classes.txt").write_text("road\ncar\n")
    (root / "labels.csv").write_text("photo,tags\na,road\n")
    return root


def test_the_manifest_depends_on_names_and_content_only(tmp_path: Path) -> None:
    one, two = own_photos(tmp_path / "one"), own_photos(tmp_path / "two")
    (two / "images/b").rename(tmp_path / "disk")
    (two / "images/b").symlink_to(tmp_path / "disk")  # links are followed
    found = dataset_manifest("folder", one, tmp_path / "memory.json")
    assert found == dataset_manifest("folder", two, tmp_path / "memory.json")
    assert found is not None
    assert [name for name, _, _ in found] == [
        *("classes.txt", "images/a.png", "images/b/c.png", "labels.csv", "masks/a.png")
    ]
    (tmp_path / "disk/c.png").rename(tmp_path / "disk/d.png")
    assert dataset_manifest("folder", two, tmp_path / "memory.json") != found


def test_unchanged_files_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, memory, read = own_photos(tmp_path / "own"), tmp_path / "x/memory.json", list[str]()

    def digest(path: Path) -> str:
        read.append(path.name)
        return path.read_bytes().hex()

    monkeypatch.setattr(collect, "file_digest", digest)
    first = dataset_manifest("folder", root, memory)
    assert (len(read), dataset_manifest("folder", root, memory), len(read)) == (5, first, 5)
    (root / "labels.csv").write_text("photo,tags\na,car\n")
    assert dataset_manifest("folder", root, memory) != first
    assert read[5:] == ["labels.csv"]
    for damaged in ("[", "[]", '{"a": 1}'):
        memory.write_text(damaged)
        dataset_manifest("folder", root, memory)
    assert len(read) == 6 + 3 * 5


def test_an_invalid_data_set_has_no_manifest_and_a_missing_mask_is_listed(tmp_path: Path) -> None:
    memory = tmp_path / "memory.json"
    assert dataset_manifest("folder", tmp_path / "nowhere", memory) is None
    assert dataset_manifest("folder", tmp_path, memory) is None  # no classes
    save(tmp_path, "train/images/a.png", "val/images/a.png")
    lines = dataset_manifest("demo", tmp_path, memory)
    assert lines is not None
    assert ["val/masks/a.png", "missing", ""] in lines
