"""A user's own photos: classes, splits, masks and annotations are found, refused or reported."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import open_dataset
from pipeline.datasets.base import Dataset
from pipeline.datasets.collect import used_scenes
from pipeline.datasets.folder import read_classes
from pipeline.scenes.classes import IGNORE_INDEX

RNG = np.random.default_rng(0)


def photo(path: Path, size: tuple[int, int] = (16, 8), **options: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix.lower() == ".heic":
        path.write_bytes(b"\0")
        return
    pixels = RNG.integers(0, 256, (4, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size).save(path, **options)


def folder(root: Path, photos: Sequence[str], masks: Sequence[str] = ()) -> Path:
    root.mkdir(exist_ok=True)
    (root / "classes.csv").write_text("class\nroad\ncar\nsky\n")
    for name in photos:
        photo(root / name)
    for name in masks:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (16, 8)).save(root / name, "PNG")
    return root


def keys(dataset: Dataset) -> list[str]:
    return [scene.key for scene in used_scenes(dataset)]


def masks_of(dataset: Dataset) -> list[Path | None]:
    return [scene.mask for scene in used_scenes(dataset)]


def remarks(dataset: Dataset) -> list[str]:
    return dataset.remarks(used_scenes(dataset))


def test_classes_keep_their_order_words_and_colours(tmp_path: Path) -> None:
    path = tmp_path / "classes.csv"
    path.write_text("class,words,colour\nroad,,\ncar,car|van,#0000ff\nmy house,house,\n")
    space = read_classes(path)
    assert space.names == ["road", "car", "my house"]
    assert space.words({}) == [["road"], ["car", "van"], ["house"]]
    assert space.palette[:2].tolist() == [[128, 64, 128], [0, 0, 255]]  # Cityscapes' road
    names = [f"class {number}" for number in range(40)]
    path.write_text("\ufeffclass\r\n" + "\r\n".join(names) + "\r\n\r\n")
    assert read_classes(path).names == names
    assert len({tuple(colour) for colour in read_classes(path).palette.tolist()}) == 40
    (tmp_path / "classes.txt").write_text("\ufeffroad\r\n\n traffic light \nStra\u00dfe, nass\n")
    names = ["road", "traffic light", "Stra\u00dfe, nass"]
    assert read_classes(tmp_path / "classes.txt").names == names


MISTAKES = {
    "": "the header must be 'class' and optionally .*, got nothing",
    "name\nroad\ncar\n": "the header must be 'class'.*got 'name'",
    "class,words,words\nroad,a,b\n": "the header must be 'class'",
    "class\nroad\n": "must list 2 to 255 classes, got 1",
    "class\n\nroad\nroad\n": "line 4 names 'road' again",
    "class,colour\nroad,red\ncar,\n": "line 2 must have a colour such as #804080, got 'red'",
    "class,words\nroad,a,b\ncar,\n": "line 2 has 3 columns, the header 2",
    "class,words\n ,a\ncar,\n": "line 2 must name a class, got ''",
    "class\nkey\ncar\n": "line 2 must name a class, got 'key'",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_the_list_of_classes_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "classes.csv").write_text(text)
    with pytest.raises(ValueError, match=rf"classes\.csv: {MISTAKES[text]}"):
        read_classes(tmp_path / "classes.csv")


def test_a_missing_list_of_classes_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"classes\.csv: no such file; write one with the header"):
        open_dataset("folder", tmp_path)
    (tmp_path / "class_names.csv").touch()
    with pytest.raises(ValueError, match=r"; found class_names\.csv$"):
        open_dataset("folder", tmp_path)


def test_photos_of_any_depth_and_ending_are_found_with_their_masks(tmp_path: Path) -> None:
    photos = ["b.JPG", "monday/a.1.png", "monday/c.jpeg", ".hidden/d.png", "Fahrt/\u00fc.webp"]
    root = folder(tmp_path, [f"images/{name}" for name in photos], ["masks/monday/a.1.png"])
    for number, ending in enumerate((".tif", ".GIF", ".jfif")):
        format = {"j": "JPEG", "G": "GIF", "t": "TIFF"}[ending[1]]
        photo(root / f"images/z/{number}{ending}", format=format)
    (root / "images/._b.jpg").write_text("of a Mac")
    mask = root / "masks/monday/a.1.png"
    Image.fromarray(np.array([[0, 2, 255]], np.uint8)).save(mask)
    dataset = open_dataset("folder", root)
    names = ["Fahrt/\u00fc", "b", "monday/a.1", "monday/c", "z/0", "z/1", "z/2"]
    assert keys(dataset) == [f"train/{name}" for name in names]
    assert masks_of(dataset) == [None, None, mask, None, None, None, None]
    assert dataset.read_mask(mask).tolist() == [[0, 2, IGNORE_INDEX]]


def test_photos_may_lie_in_the_folder_itself(tmp_path: Path) -> None:
    root = folder(tmp_path, ["a b.JPG", "c/d.png", "proposals/car.png"], ["masks/a b.png"])
    (root / "proposals/correct.html").touch()
    dataset = open_dataset("folder", root)
    assert keys(dataset) == ["train/a b", "train/c/d"]
    assert masks_of(dataset) == [root / "masks/a b.png", None]


@pytest.mark.parametrize(
    ("home", "train", "val", "masks"),
    [
        ("", "train", "val", "masks/train"),
        ("IMAGES/", "Train", "validation", "Masks/training"),
        ("", "TRAIN", "dev", "MASKS/Train"),
    ],
)
def test_splits_are_found_by_their_usual_names(
    tmp_path: Path, home: str, train: str, val: str, masks: str
) -> None:
    root = folder(tmp_path, [f"{home}{train}/a.jpg", f"{home}{val}/b.jpg"], [f"{masks}/a.png"])
    dataset = open_dataset("folder", root)
    assert keys(dataset) == ["train/a", "val/b"]
    assert masks_of(dataset) == [root / masks / "a.png", None]
    assert remarks(dataset) == []


REFUSED = {
    "two of val": (["train/a.jpg", "val/b.jpg", "valid/c.jpg"], "means the same"),
    "two of images": (["images/a.jpg", "Images/b.jpg"], "means the same"),
    "photos beside images": (["images/a.jpg", "b.jpg"], "beside images; move them into"),
    "photos beside splits": (["Train/a.jpg", "valid/b.jpg", "c.jpg"], "beside Train; move them"),
    "splits beside images": (["images/a.jpg", "valid/b.jpg"], "has photos, but images exists"),
    "val alone": (["a.jpg", "Validation/b.jpg"], "has Validation but no train; move the other"),
    "test alone": (["a.jpg", "test/b.jpg"], "has test but no train"),
    "one level deeper": (["set/train/a.jpg", "set/val/b.jpg"], "set/val: looks like validation"),
    "with a year": (["images/train2017/a.jpg", "images/val2017/b.jpg"], "val2017: looks like val"),
    "sets": (["trainset/a.jpg", "valset/b.jpg"], "valset: looks like validation photos; rename"),
    "two endings": (["a.jpg", "a.png"], r"a\.png: a\.jpg has the same name; rename one"),
    "classes twice": (["a.jpg", "classes.txt"], r"classes\.txt: classes\.csv has the same purpo"),
    "labels twice": (["labels.csv", "image_labels.csv"], r"image_labels\.csv: labels\.csv has"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_ambiguous_layouts_are_refused(tmp_path: Path, kind: str) -> None:
    names, says = REFUSED[kind]
    root = folder(tmp_path, [name for name in names if name[-4:] not in (".txt", ".csv")])
    for name in names:
        (root / name).touch()
    with pytest.raises(ValueError, match=says):
        open_dataset("folder", root).scenes("train")


@pytest.mark.parametrize("name", ["Val d'Isere", "validate me"])
def test_a_part_of_its_name_makes_no_folder_a_split(tmp_path: Path, name: str) -> None:
    dataset = open_dataset("folder", folder(tmp_path, ["a.jpg", f"{name}/b.jpg"]))
    assert set(keys(dataset)) == {"train/a", f"train/{name}/b"}


NOT_READ = {
    "other kinds": (
        ["a.jpg", "b.heic", "c.HEIC", "trip/d.mp4", "trip/notes.txt"],
        [": 4 files of other kinds were not read: .heic 2, .mp4 1, .txt 1"],
    ),
    "the test split": (
        ["train/a.jpg", "val/b.jpg", "Test/c.jpg"],
        ["Test: 1 images in it were not read; photos are read from train, val, masks from "],
    ),
    "a folder beside splits": (
        ["images/train/a.jpg", "images/more/b.jpg", "images/more/c.heic"],
        ["images/more: 1 images in it were not read", ": 1 file of another kind was not read"],
    ),
    "a folder beside images": (["images/a.jpg", "extra/b.jpg"], ["extra: 1 images in it were"]),
    "thumbnails": (
        ["a.jpg", "@eaDir/a.jpg/SYNOPHOTO_THUMB_M.jpg", "trip/@eaDir/x.jpg", "trip/b.jpg"],
        ["folders of thumbnails or deleted files were not read: @eaDir 2"],
    ),
    "labels of another name": (
        ["a.jpg", "labels.xlsx", "Label.txt", "notes.csv"],
        ["labels.xlsx: was not read; labels are", "Label.txt: was not", ".csv 1, .txt 1, .xlsx 1"],
    ),
}


@pytest.mark.parametrize("kind", NOT_READ)
def test_what_is_not_read_is_reported(tmp_path: Path, kind: str) -> None:
    names, says = NOT_READ[kind]
    root = folder(tmp_path, [name for name in names if name.endswith((".jpg", ".heic", ".HEIC"))])
    for name in (*names, ".DS_Store", "Thumbs.db", "trip/desktop.ini", ".hidden/x.jpg"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).touch()
    lines = remarks(open_dataset("folder", root))
    assert all(any(part in line for line in lines) for part in says), lines
    assert len(lines) <= len(says)


def test_photos_of_other_kinds_alone_are_reported_before_the_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = folder(tmp_path, ["train/a.heic", "train/b.HEIC", "val/c.jpg"])
    with pytest.raises(ValueError, match="no photos of split 'train' found"):
        used_scenes(open_dataset("folder", root))
    assert f"{root}/train: 2 files of other kinds were not read: .heic 2" in caplog.text


ANNOTATED = {
    "beside": (["a.jpg", "b.jpg"], ["annotations/a.png", "annotations/b.png"]),
    "in the splits": (["train/images/a.jpg", "val/images/b.jpg"], ["train/masks/a.png"]),
    "ground truth": (["trip/a.jpg"], ["trip/ground_truth/a.png"]),
    "with a suffix": (["a.jpg"], ["gt/a_mask.png"]),
    "an unknown name, but masks": (["pics/a.jpg", "pics/b.jpg"], ["x/a.png", "x/b.png"]),
    "in the same folder": (["a.jpg", "b.jpg"], ["a_mask.png"]),
}


@pytest.mark.parametrize("kind", ANNOTATED)
def test_annotations_among_photos_are_not_photos(tmp_path: Path, kind: str) -> None:
    photos, masks = ANNOTATED[kind]
    dataset = open_dataset("folder", folder(tmp_path, photos, masks))
    assert sorted(Path(key).name for key in keys(dataset)) == [Path(name).stem for name in photos]
    says = "look like annotations of the photos and were not read"
    assert any(says in line for line in remarks(dataset))


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
    assert remarks(dataset) == []


@pytest.mark.parametrize("name", ["a.PNG", "a.jpg.png", "A-label.png", "a_gtFine_labelIds.png"])
def test_a_mask_of_a_similar_name_is_taken_and_reported(tmp_path: Path, name: str) -> None:
    dataset = open_dataset("folder", folder(tmp_path, ["a.jpg", "b.jpg"], [f"masks/{name}"]))
    assert masks_of(dataset) == [tmp_path / "masks" / name, None]
    assert [line for line in remarks(dataset) if "similar names" in line and name in line]


def test_a_mask_that_matches_no_photo_or_several_is_reported(tmp_path: Path) -> None:
    masks = ["masks/a.png", "masks/a_mask.png", "masks/b_mask.png", "masks/b_gt.png", "masks/z.png"]
    root = folder(tmp_path, ["a.jpg", "b.jpg", "train me.jpg"], masks)
    (root / "masks/c.txt").touch()
    dataset = open_dataset("folder", root)
    assert masks_of(dataset) == [root / masks[0], None, None]
    assert remarks(dataset) == [
        f"{root}/masks: files of no photo, or no PNG, not read (5): a_mask.png, b_gt.png, "
        "b_mask.png, c.txt, z.png"
    ]


def test_the_mask_of_a_mac_matches_a_photo_of_another_system(tmp_path: Path) -> None:
    root = folder(tmp_path, ["stra\u00dfe \u00e4.jpg"], ["masks/stra\u00dfe a\u0308.png"])
    assert masks_of(open_dataset("folder", root)) != [None]


def test_tables_are_found_in_any_case(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg")
    (tmp_path / "Classes.TXT").write_text("road\ncar\n")
    for name in ("labels.CSV", "labels.tsv", "LABELS.JSON"):
        (tmp_path / name).touch()
        dataset = open_dataset("folder", tmp_path)
        assert dataset.label_space.names == ["road", "car"]
        assert dataset.image_labels == tmp_path / name
        assert remarks(dataset) == []
        (tmp_path / name).unlink()
