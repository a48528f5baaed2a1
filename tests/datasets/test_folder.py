"""A plain folder of photos: its list of classes, its splits, and a run without any human mask."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import load_scenes, open_dataset
from pipeline.datasets.folder import read_classes
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.system.files import LIST
from tests.helpers.tiny_run import APPS, prepare_folder, run_stage

CLASSES = "class,words,colour\nroad,,\ncar,car|van,#0000ff\nmy house,house,\n"
NAMES = ["road", "car", "my house"]


def write_classes(root: Path, text: str = CLASSES) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    (root / "classes.csv").write_text(text)
    return root / "classes.csv"


def photo(path: Path, size: tuple[int, int] = (128, 64)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (4, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size).save(path)


def test_classes_keep_their_order_words_and_colours(tmp_path: Path) -> None:
    space = read_classes(write_classes(tmp_path))
    assert space.names == NAMES
    assert space.words({}) == [["road"], ["car", "van"], ["house"]]
    assert space.palette[0].tolist() == [128, 64, 128]  # Cityscapes' road
    assert space.palette[1].tolist() == [0, 0, 255]


def test_a_list_of_names_is_enough_and_each_class_has_its_own_colour(tmp_path: Path) -> None:
    names = [f"class {number}" for number in range(40)]
    text = "\ufeffclass\r\n" + "\r\n".join(names) + "\r\n\r\n"
    space = read_classes(write_classes(tmp_path, text))
    assert space.names == names
    assert space.words({})[7] == ["class 7"]
    assert len({tuple(colour) for colour in space.palette.tolist()}) == 40


def test_names_alone_are_a_list_too(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("\ufeffroad\r\n\n traffic light \nStra\u00dfe, nass\n")
    assert read_classes(tmp_path / "classes.txt").names == [
        "road",
        "traffic light",
        "Stra\u00dfe, nass",
    ]


MISTAKES = {
    "": "the header must be 'class'",
    "name\nroad\ncar\n": "the header must be 'class'.*got 'name'",
    "class\nroad\n": "must list 2 to 255 classes, got 1",
    "class\nroad\nroad\n": "line 3 names 'road' again",
    "class\n\nroad\nroad\n": "line 4 names 'road' again",
    "class,words,words\nroad,a,b\n": "the header must be 'class'",
    "class,colour\nroad,red\ncar,\n": "line 2 must have a colour such as #804080, got 'red'",
    "class,words\nroad,a,b\ncar,\n": "line 2 has 3 columns, the header 2",
    "class,words\n ,a\ncar,\n": "line 2 must name a class, got ''",
    "class;words\nroad\nroad;\n": "line 3 names 'road' again",
    "class\nkey\ncar\n": "line 2 must name a class, got 'key'",
}


@pytest.mark.parametrize("text", MISTAKES)
def test_a_mistake_in_the_list_of_classes_is_named(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=rf"classes\.csv: {MISTAKES[text]}"):
        read_classes(write_classes(tmp_path, text))


def test_a_folder_without_a_list_of_classes_says_what_to_write(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"classes\.csv: no such file; write one with the header"):
        open_dataset("folder", tmp_path)


def test_photos_of_any_depth_and_ending_are_found_with_their_masks(tmp_path: Path) -> None:
    write_classes(tmp_path)
    for name in ("b.JPG", "monday/a.1.png", "monday/c.jpeg", ".hidden/d.png"):
        photo(tmp_path / "images" / name)
    (tmp_path / "images/notes.txt").write_text("a stray file")
    (tmp_path / "images/._b.jpg").write_text("of a Mac")
    mask = tmp_path / "masks/monday/a.1.png"
    mask.parent.mkdir(parents=True)
    Image.fromarray(np.array([[0, 2, 255]], np.uint8)).save(mask)
    scenes = load_scenes("folder", tmp_path, "train")
    assert [scene.key for scene in scenes] == ["train/b", "train/monday/a.1", "train/monday/c"]
    assert [scene.mask for scene in scenes] == [None, mask, None]
    read = open_dataset("folder", tmp_path).read_mask(mask)
    assert read.tolist() == [[0, 2, IGNORE_INDEX]]


def test_photos_may_lie_in_the_folder_itself(tmp_path: Path) -> None:
    write_classes(tmp_path)
    for name in ("a b.JPG", "Fahrt/\u00fc.webp", "masks/a b.png", "proposals/car.png"):
        photo(tmp_path / name)
    (tmp_path / "proposals/correct.html").touch()
    scenes = load_scenes("folder", tmp_path, "train")
    assert [scene.key for scene in scenes] == ["train/Fahrt/\u00fc", "train/a b"]
    assert [scene.mask for scene in scenes] == [None, tmp_path / "masks/a b.png"]


@pytest.mark.parametrize("inner", ["images", ""])
def test_two_folders_of_photos_are_two_splits(tmp_path: Path, inner: str) -> None:
    write_classes(tmp_path)
    for name in ("train/a.jpg", "val/a.jpg", "val/b.jpg"):
        photo(tmp_path / inner / name)
    dataset = open_dataset("folder", tmp_path)
    assert dataset.splits == ("train", "val")
    assert [scene.key for scene in dataset.scenes("val")] == ["val/a", "val/b"]


@pytest.mark.parametrize("names", [["val/a.jpg", "b.jpg"], ["train/a.jpg", "b.jpg"]])
def test_photos_of_no_split_are_refused(tmp_path: Path, names: list[str]) -> None:
    write_classes(tmp_path)
    for name in names:
        photo(tmp_path / "images" / name)
    with pytest.raises(ValueError, match=r"images: ho?a?l?d?s .*train"):
        open_dataset("folder", tmp_path)


def test_photos_beside_the_folder_of_photos_are_refused(tmp_path: Path) -> None:
    write_classes(tmp_path)
    for name in ("images/a.jpg", "b.jpg"):
        photo(tmp_path / name)
    with pytest.raises(ValueError, match="has photos beside images; put them into"):
        open_dataset("folder", tmp_path)


@pytest.mark.parametrize("name", ["classes.txt", "image_labels.csv"])
def test_two_files_of_one_purpose_are_refused(tmp_path: Path, name: str) -> None:
    write_classes(tmp_path)
    (tmp_path / "labels.csv").touch()
    (tmp_path / name).touch()
    with pytest.raises(ValueError, match=rf"{name}: .* is there, too; keep one of them"):
        open_dataset("folder", tmp_path)


def test_photos_that_differ_by_their_ending_alone_are_refused(tmp_path: Path) -> None:
    write_classes(tmp_path)
    photo(tmp_path / "images/a.jpg")
    photo(tmp_path / "images/a.png")
    with pytest.raises(ValueError, match=r"a\.png: a\.jpg has the same name; rename one"):
        load_scenes("folder", tmp_path, "train")


def test_photos_and_tags_alone_give_a_segmenter_and_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "mine"
    write_classes(root)
    for name, size in [("a.jpg", (128, 64)), ("b.png", (96, 80)), ("trip/c.jpg", (64, 128))]:
        photo(root / "images" / name, size)
    (root / "image_labels.csv").write_text(
        f"key,{','.join(NAMES)}\na.jpg,1,1,0\nb.png,1,0,1\ntrip/c.jpg,0,1,1\n"
    )
    short = {"train.steps": 2, "train.preview_every": 2}
    mask = root / "masks" / "b.png"  # one photo has a mask, and it is not one to score on
    mask.parent.mkdir()
    Image.fromarray(np.zeros((80, 96), np.uint8)).save(mask)
    prepare_folder(tmp_path, {"dataset.name": "folder", "dataset.root": str(root)} | short)
    monkeypatch.chdir(tmp_path)
    for stage in APPS:
        if stage != "draw":
            result = run_stage(stage)
            assert result.exit_code == 0, f"{stage}: {result.output} {result.exception!r}"
    assert json.loads((tmp_path / "results/segmenter.json").read_text()) == {}
    names = {path.name for path in (tmp_path / "results/eval").iterdir()}
    assert names == {"panels.png", LIST}
    for picture in ("eval/panels", "eval_pseudo/panels_unlabelled", "prepare/photos"):
        with Image.open(tmp_path / f"results/{picture}.png") as panel:
            assert panel.width > 300
    result = run_stage("eval", "--images", str(root / "images"), "--out", "predicted")
    assert result.exit_code == 0, result.output
