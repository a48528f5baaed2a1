"""Image-level labels: simulated as counted by hand, read as written, each mistake named."""

import logging
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.config.dataset import DatasetParams
from pipeline.datasets import open_dataset
from pipeline.datasets.base import Scene, read_scene_mask
from pipeline.datasets.collect import (
    collect_image_labels,
    drop_unlabelled,
    simulate_image_labels,
    warn_unlabelled,
)
from pipeline.scenes.image_labels import write_image_labels

CAMVID = open_dataset("camvid", Path())
READ = CAMVID.read_mask


def scene_of(folder: Path, key: str, ids: list[list[int]] | None) -> Scene:
    """A photo of 2x4 pixels, with a mask of these ids where there are any."""
    split, name = key.split("/")
    image, mask = folder / split / f"{name}.png", folder / f"{split}annot" / f"{name}.png"
    for path in (image, mask):
        path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (4, 2)).save(image)
    if ids is not None:
        Image.fromarray(np.array(ids, dtype=np.uint8)).save(mask)
    return Scene(image, None if ids is None else mask, split, key)


def present(labels: np.ndarray) -> list[int]:
    return np.flatnonzero(labels).tolist()


@pytest.mark.parametrize(
    ("min_pixels", "classes"), [(1, [0, 3, 10]), (2, [0, 3]), (3, [0]), (4, [])]
)
def test_a_class_is_in_the_image_from_min_pixels_on_and_void_never(
    tmp_path: Path, min_pixels: int, classes: list[int]
) -> None:
    scene = scene_of(tmp_path, "train/a", [[0, 0, 0, 10], [3, 3, 11, 255]])
    labels = simulate_image_labels([scene], read_mask=READ, num_classes=11, min_pixels=min_pixels)
    assert list(labels) == ["train/a"]
    assert (labels["train/a"].shape, labels["train/a"].dtype) == ((11,), np.bool_)
    assert present(labels["train/a"]) == classes


def test_a_photo_without_a_mask_gets_no_simulated_labels(tmp_path: Path) -> None:
    scenes = [scene_of(tmp_path, "train/a", None), scene_of(tmp_path, "val/b", [[11] * 4] * 2)]
    labels = simulate_image_labels(scenes, read_mask=READ, num_classes=11, min_pixels=1)
    assert {key: present(row) for key, row in labels.items()} == {"val/b": []}


def test_a_mask_of_another_size_than_its_photo_is_refused(tmp_path: Path) -> None:
    scene = scene_of(tmp_path, "train/a", [[0, 1, 2]])
    sentence = (
        f"{scene.mask}: is 3x1 pixels, but its photo a.png is 4x2; export the mask at the photo's "
        "size"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        simulate_image_labels([scene], read_mask=READ, num_classes=11, min_pixels=1)


def test_a_scene_without_a_mask_has_none_to_read(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"a\.png: has no human mask; add one or leave the photo"):
        read_scene_mask(scene_of(tmp_path, "train/a", None), READ)


ROW = np.array([True, False, False])


def test_training_photos_without_a_line_are_named_and_validation_photos_need_none(
    caplog: pytest.LogCaptureFixture,
) -> None:
    keys = ["train/a", "train/b", "val/c"]
    with caplog.at_level(logging.WARNING, "carb"):
        warn_unlabelled({"train/a": ROW, "train/b": ROW}, keys, Path("x.csv"))
        assert not caplog.messages
        warn_unlabelled({"train/a": ROW, "val/c": ROW}, keys, Path("x.csv"))
    assert caplog.messages == [
        "image labels: x.csv has no line for 1 training photos, left out: train/b"
    ]


def test_a_photo_without_any_class_is_left_out_and_named(
    caplog: pytest.LogCaptureFixture,
) -> None:
    labels = {"train/a": ROW, "train/b": ~ROW & ROW}
    with caplog.at_level(logging.WARNING, "carb"):
        assert list(drop_unlabelled(labels)) == ["train/a"]
    assert caplog.messages == ["image labels: train/b has no class at all; left out"]


def dataset_params(root: Path, image_labels: Path | None) -> DatasetParams:
    labels = None if image_labels is None else str(image_labels)
    return DatasetParams(name="camvid", root=str(root), image_labels=labels, min_pixels=2)


def test_without_a_file_labels_are_simulated(tmp_path: Path) -> None:
    scenes = [
        scene_of(tmp_path, "train/a", [[0, 0, 3, 11], [5, 5, 5, 11]]),
        scene_of(tmp_path, "train/b", [[11, 11, 11, 11], [0, 1, 2, 3]]),
        scene_of(tmp_path, "val/c", [[7, 7, 7, 7], [7, 7, 7, 7]]),
    ]
    labels = collect_image_labels(scenes, CAMVID, dataset_params(tmp_path, None))
    found = {key: present(row) for key, row in labels.items()}
    assert found == {"train/a": [0, 5], "val/c": [7]}


def test_a_file_of_labels_is_taken_and_no_mask_opened(tmp_path: Path) -> None:
    scene = scene_of(tmp_path, "train/a", [[0] * 4] * 2)
    assert scene.mask is not None
    scene.mask.write_text("no mask")
    row = np.arange(11) == 4
    write_image_labels(tmp_path / "x.csv", {"train/a": row}, CAMVID.label_space.names)
    params = dataset_params(tmp_path, tmp_path / "x.csv")
    labels = collect_image_labels([scene], CAMVID, params)
    assert present(labels["train/a"]) == [4]


@pytest.mark.parametrize("ids", [None, [[11] * 4] * 2])
def test_no_usable_training_photo_is_an_error(tmp_path: Path, ids: list[list[int]] | None) -> None:
    scenes = [scene_of(tmp_path, "train/a", ids), scene_of(tmp_path, "val/b", [[0] * 4] * 2)]
    with pytest.raises(ValueError, match="no training photo has an image-level label; name a file"):
        collect_image_labels(scenes, CAMVID, dataset_params(tmp_path, None))


def test_a_line_says_where_labels_come_from(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "carb")
    scene = scene_of(tmp_path, "train/a", [[0, 0, 255, 255], [255] * 4])
    collect_image_labels([scene], CAMVID, dataset_params(tmp_path, None))
    assert "image labels: simulated from 1 human masks (dataset.min_pixels 2)" in caplog.text
    assert (
        "image labels: none of 1 masks shows building, pole, road, pavement, tree, ...; masks "
        in (caplog.text)
    )
    for name, says in (("x.csv", f"from {tmp_path}/x.csv"), ("labels.npy", "from the authors' fi")):
        path, row = tmp_path / name, np.arange(11) == 4
        if name == "x.csv":
            write_image_labels(path, {"train/a": row}, CAMVID.label_space.names)
        else:
            np.save(path, {"train/a": row.astype(float)}, allow_pickle=True)
        caplog.clear()
        collect_image_labels([scene], CAMVID, dataset_params(tmp_path, path))
        assert f"image labels: {says}" in caplog.text
