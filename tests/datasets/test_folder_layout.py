"""Names of folders and files in one's own photos: read as meant, refused, or named."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import open_dataset
from pipeline.datasets.base import Dataset
from pipeline.datasets.collect import used_scenes

CLASSES = "class\nroad\ncar\nsky\n"
RNG = np.random.default_rng(0)


def photo(path: Path, **options: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".heic":
        path.write_bytes(b"\0")
        return
    pixels = RNG.integers(0, 256, (8, 16, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, **options)


def mask(path: Path, *, value: int = 0, format: str = "PNG") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 16), value, np.uint8)).save(path, format)


def folder(root: Path, photos: Sequence[str], masks: Sequence[str] = ()) -> Path:
    root.mkdir(exist_ok=True)
    (root / "classes.csv").write_text(CLASSES)
    for name in photos:
        photo(root / name)
    for name in masks:
        mask(root / name)
    return root


def keys(dataset: Dataset) -> list[str]:
    return [scene.key for scene in used_scenes(dataset)]


def told(dataset: Dataset) -> list[str]:
    return dataset.remarks(used_scenes(dataset))


SPLITS = [
    ("train", "valid"),
    ("train", "validation"),
    ("Train", "Val"),
    ("training", "VALIDATION"),
    ("TRAIN", "dev"),
]


@pytest.mark.parametrize("home", ["", "IMAGES/"])
@pytest.mark.parametrize(("train", "val"), SPLITS)
def test_splits_are_found_by_their_usual_names(
    tmp_path: Path, home: str, train: str, val: str
) -> None:
    masks = [f"masks/{train}/a.png", f"Masks/{val}/b.png"]
    root = folder(tmp_path, [f"{home}{train}/a.jpg", f"{home}{val}/b.jpg"], masks[:1])
    dataset = open_dataset("folder", root)
    assert keys(dataset) == ["train/a", "val/b"]
    assert [scene.mask for scene in used_scenes(dataset)] == [root / masks[0], None]
    assert told(dataset) == []


@pytest.mark.parametrize("name", ["masks/validation", "MASKS/Valid", "Masks/val"])
def test_masks_may_have_another_usual_name_of_the_split(tmp_path: Path, name: str) -> None:
    root = folder(tmp_path, ["train/a.jpg", "val/b.jpg"], [f"{name}/b.png"])
    scenes = used_scenes(open_dataset("folder", root))
    assert [scene.mask for scene in scenes] == [None, root / name / "b.png"]


REFUSED = {
    "two of val": (["train/a.jpg", "val/b.jpg", "valid/c.jpg"], "means the same"),
    "two of train": (["train/a.jpg", "Train/b.jpg"], "means the same"),
    "two of images": (["images/a.jpg", "Images/b.jpg"], "means the same"),
    "two of masks": (["a.jpg", "masks/a.png", "Masks/a.png"], "means the same"),
    "photos beside splits": (["Train/a.jpg", "valid/b.jpg", "c.jpg"], "beside Train"),
    "splits beside images": (["images/a.jpg", "valid/b.jpg"], "holds photos beside images"),
    "val alone": (["a.jpg", "Validation/b.jpg"], "holds Validation and no train"),
    "test alone": (["a.jpg", "test/b.jpg"], "holds test and no train"),
    "one level deeper": (["set/train/a.jpg", "set/val/b.jpg"], "set/val: is named like photos to"),
    "like train and val": (["train_images/a.jpg", "val_images/b.jpg"], "val_images: is named"),
    "with a year": (["images/train2017/a.jpg", "images/val2017/b.jpg"], "val2017: is named like"),
    "sets": (["trainset/a.jpg", "valset/b.jpg"], "valset: is named like"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_told_apart_is_refused(tmp_path: Path, kind: str) -> None:
    photos, says = REFUSED[kind]
    root = folder(tmp_path, photos)
    with pytest.raises(ValueError, match=says):
        open_dataset("folder", root)


@pytest.mark.parametrize("name", ["Val d'Isere", "train station", "validate me", "development"])
def test_a_folder_is_no_split_by_a_part_of_its_name(tmp_path: Path, name: str) -> None:
    dataset = open_dataset("folder", folder(tmp_path, ["a.jpg", f"{name}/b.jpg"]))
    assert set(keys(dataset)) == {"train/a", f"train/{name}/b"}


NOT_READ = {
    "other kinds": (
        ["a.jpg", "b.heic", "c.HEIC", "trip/d.mp4", "trip/notes.txt"],
        [": 4 files of other kinds were not read: .heic 2, .mp4 1, .txt 1"],
    ),
    "one of another kind": (
        ["a.jpg", "b.heic"],
        [": 1 file of another kind was not read: .heic 1"],
    ),
    "the test split": (
        ["train/a.jpg", "val/b.jpg", "Test/c.jpg"],
        ["Test: 1 pictures in it were not read; photos are read from train, val, masks from "],
    ),
    "a folder beside splits": (
        ["images/train/a.jpg", "images/more/b.jpg", "images/more/c.heic"],
        ["images/more: 1 pictures in it were not read", ".heic 1"],
    ),
    "a folder beside images": (["images/a.jpg", "extra/b.jpg"], ["extra: 1 pictures in it were"]),
    "thumbnails": (
        ["a.jpg", "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "trip/@eaDir/x.jpg", "trip/b.jpg"],
        ["folders of thumbnails or deleted files were not read: @eaDir 2"],
    ),
    "labels of another name": (
        ["a.jpg", "labels.xlsx", "Label.txt", "notes.csv"],
        ["labels.xlsx: was not read; labels are", "Label.txt: was not", ".csv 1, .txt 1, .xlsx 1"],
    ),
    "labels beside the photos": (
        ["images/a.jpg", "images/labels.csv"],
        ["images/labels.csv: was not read", ".csv 1"],
    ),
}


@pytest.mark.parametrize("kind", NOT_READ)
def test_what_is_not_read_is_counted_and_named(tmp_path: Path, kind: str) -> None:
    names, says = NOT_READ[kind]
    root = folder(tmp_path, [name for name in names if name.endswith((".jpg", ".heic", ".HEIC"))])
    for name in names:
        if not (root / name).exists():
            (root / name).parent.mkdir(exist_ok=True)
            (root / name).touch()
    for name in (".DS_Store", "Thumbs.db", "trip/desktop.ini", ".hidden/x.jpg"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    lines = told(open_dataset("folder", root))
    assert all(any(part in line for line in lines) for part in says), lines
    assert len(lines) <= len(says)


ANNOTATED = {
    "beside": (["a.jpg", "b.jpg"], ["annotations/a.png", "annotations/b.png"]),
    "labels": (["images/a.jpg"], ["images/Labels/a.png"]),
    "in the splits": (["train/images/a.jpg", "val/images/b.jpg"], ["train/masks/a.png"]),
    "ground truth": (["trip/a.jpg"], ["trip/ground_truth/a.png"]),
    "with a suffix": (["a.jpg"], ["gt/a_mask.png"]),
    "an unknown name, but masks": (["pics/a.jpg", "pics/b.jpg"], ["x/a.png", "x/b.png"]),
    "in the same folder": (["a.jpg", "b.jpg"], ["a_mask.png"]),
}


@pytest.mark.parametrize("kind", ANNOTATED)
def test_annotations_among_photos_are_no_photos(tmp_path: Path, kind: str) -> None:
    photos, masks = ANNOTATED[kind]
    dataset = open_dataset("folder", folder(tmp_path, photos, masks))
    stems = {Path(name).stem for name in photos}
    assert {Path(key).name for key in keys(dataset)} == stems
    assert len(keys(dataset)) == len(photos)
    lines = told(dataset)
    assert any("look like annotations of the photos and were not read" in line for line in lines)


@pytest.mark.parametrize(
    "names",
    [
        ["day/000.png", "night/000.png"],
        ["labels/a.jpg", "labels/b.jpg"],
        ["jpg/a.jpg", "png/a.png"],
        ["left/a.jpg", "left/a_l.png"],
    ],
)
def test_photos_of_the_same_names_stay_photos(tmp_path: Path, names: list[str]) -> None:
    dataset = open_dataset("folder", folder(tmp_path, names))
    assert len(keys(dataset)) == len(names)
    assert told(dataset) == []


LOOSE = ["a.PNG", "a_mask.png", "a.jpg.png", "a-label.png", "A.png", "a_gtFine_labelIds.png"]


@pytest.mark.parametrize("name", LOOSE)
def test_a_mask_of_almost_the_same_name_is_taken_and_named(tmp_path: Path, name: str) -> None:
    dataset = open_dataset("folder", folder(tmp_path, ["a.jpg", "b.jpg"], [f"masks/{name}"]))
    assert used_scenes(dataset)[0].mask == tmp_path / "masks" / name
    assert [line for line in told(dataset) if "taken for the photos" in line and name in line]


def test_a_mask_that_fits_no_photo_or_several_is_named(tmp_path: Path) -> None:
    masks = ["masks/a.png", "masks/a_mask.png", "masks/b_mask.png", "masks/b_gt.png", "masks/z.png"]
    root = folder(tmp_path, ["a.jpg", "b.jpg", "train me.jpg"], masks)
    (root / "masks/c.txt").touch()
    dataset = open_dataset("folder", root)
    assert [scene.mask for scene in used_scenes(dataset)] == [root / masks[0], None, None]
    assert told(dataset) == [
        f"{root}/masks: files of no photo, or no PNG, not read (5): a_mask.png, b_gt.png, "
        "b_mask.png, c.txt, z.png"
    ]


def test_a_mask_written_by_a_mac_fits_a_photo_written_elsewhere(tmp_path: Path) -> None:
    root = folder(tmp_path, ["stra\u00dfe \u00e4.jpg"], ["masks/stra\u00dfe a\u0308.png"])
    assert used_scenes(open_dataset("folder", root))[0].mask is not None


@pytest.mark.parametrize("name", ["labels.CSV", "Labels.csv", "labels.tsv", "LABELS.JSON"])
def test_labels_are_found_in_any_capitals(tmp_path: Path, name: str) -> None:
    root = folder(tmp_path, ["a.jpg"])
    (root / name).touch()
    dataset = open_dataset("folder", root)
    assert dataset.image_labels == root / name
    assert told(dataset) == []


@pytest.mark.parametrize("name", ["classes.TXT", "Classes.txt"])
def test_classes_are_found_in_any_capitals(tmp_path: Path, name: str) -> None:
    photo(tmp_path / "a.jpg")
    (tmp_path / name).write_text("road\ncar\n")
    assert open_dataset("folder", tmp_path).label_space.names == ["road", "car"]


def test_a_list_of_classes_of_another_name_is_mentioned(tmp_path: Path) -> None:
    (tmp_path / "class_names.csv").write_text(CLASSES)
    with pytest.raises(ValueError, match=r"classes\.csv: no such file; .*; there is class_names"):
        open_dataset("folder", tmp_path)


KINDS = [".tif", ".tiff", ".gif", ".jfif", ".jpe", ".TIF"]


@pytest.mark.parametrize("ending", KINDS)
def test_photos_that_pillow_reads_safely_are_read(tmp_path: Path, ending: str) -> None:
    photo(tmp_path / f"a{ending}", format={"j": "JPEG", "g": "GIF"}.get(ending[1], "TIFF"))
    assert keys(open_dataset("folder", folder(tmp_path, []))) == ["train/a"]


def test_photos_of_other_kinds_alone_are_named_before_the_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = folder(tmp_path, ["train/a.heic", "train/b.HEIC", "val/c.jpg"])
    with pytest.raises(ValueError, match="no photos of split 'train' found"):
        used_scenes(open_dataset("folder", root))
    assert f"{root}/train: 2 files of other kinds were not read: .heic 2" in caplog.text
