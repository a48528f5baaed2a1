"""User mistakes in data sets, photos, masks, labels and class lists."""

import os
from pathlib import Path

from tests.helpers.bad_input import (
    GREY,
    IMAGE,
    MASK,
    Case,
    cut,
    edit,
    folder,
    hostile_npy,
    own_folder,
    panoptic,
    png,
    replace,
    save,
    unlink,
    write,
)

INDEX = "data/scenes.json"
OWN = {"dataset.name": "folder", "dataset.root": "own"}
WILDDASH = {"dataset.name": "wilddash2", "dataset.root": "own"}
TWO = "class\nroad\ncar\n"


def labels(name: str, content: str | bytes, *says: str) -> Case:
    """A file of labels that `prepare` refuses."""
    return Case("prepare", (name, *says), {"dataset.image_labels": name}, write(name, content))


def photo(content: str | bytes, *says: str) -> Case:
    """A photo that `prepare` refuses."""
    return Case("prepare", ("images/00000.png", *says), spoil=write(IMAGE, content))


def mask(content: str | bytes, *says: str) -> Case:
    """A mask that `prepare` refuses."""
    return Case("prepare", ("masks/00000.png", *says), spoil=write(MASK, content))


def classes(content: str | bytes | None, *says: str) -> Case:
    """A list of classes that `prepare` refuses."""
    return Case("prepare", ("own/classes.csv", *says), OWN, own_folder(content))


def image_of_index(path: str, *says: str) -> Case:
    """An index with another path."""
    spoil = edit(INDEX, lambda content: content["photos"][0].update(image=path))
    return Case("pseudo", (*says,), {"clip.class_prompts": {"car": ["auto"]}}, spoil)


DATA_SETS = {
    "data-set folder missing": Case(
        "prepare", ("dataset.root", "nowhere"), {"dataset.root": "nowhere"}
    ),
    "data-set folder empty": Case(
        "prepare", ("empty", "no photos"), {"dataset.root": "empty"}, folder("empty")
    ),
    "data set of an unknown name": Case(
        "prepare", ("dataset.name", "moon"), {"dataset.name": "moon"}
    ),
    "folder among one's own photos a link to nothing": Case(
        "prepare",
        ("own/images/more", "a broken link"),
        OWN,
        own_folder(TWO, lambda: Path("own/images/more").symlink_to("gone")),
    ),
    "two folders of photos to score": Case(
        "prepare",
        ("own/images/val", "valid means the same"),
        OWN,
        own_folder(TWO, *map(folder, ("own/images/val", "own/images/valid"))),
    ),
    "photo a link to nothing": Case(
        "prepare",
        ("00000.png", "a broken link"),
        spoil=lambda: (Path(IMAGE).unlink(), Path(IMAGE).symlink_to("gone.png")),
    ),
    "photo of a name that is no text": Case(
        "prepare",
        ("udcff", "not UTF-8", "rename"),
        spoil=lambda: os.rename(IMAGE, os.fsencode(IMAGE).replace(b"00000", b"\xff")),
    ),
    "annotations that name a file elsewhere": Case(
        "prepare", ("panoptic.json", "file_name", "../../x.png"), WILDDASH, panoptic("../../x.png")
    ),
    "index missing": Case("pseudo", (INDEX, "dvc repro prepare"), spoil=unlink(INDEX)),
    "index cut short": Case("pseudo", (INDEX, "dvc repro prepare"), spoil=cut(INDEX)),
    "index that leads up": image_of_index("../x.png", "../x.png", "leads out"),
    "photo gone since prepare": Case(
        "pseudo", ("no such file",), {"clip.class_prompts": {"car": ["auto"]}}, unlink(IMAGE)
    ),
}
PICTURES = {
    "photo truncated": Case("prepare", ("00000.png", "not readable"), spoil=cut(IMAGE)),
    "photo is no picture": photo("hello", "not readable as an image"),
    "photo grey of 16 bits": Case(
        "prepare", ("00000.png", "8 bits", "convert"), spoil=save(IMAGE, GREY.astype("uint16"))
    ),
    "photo of terapixels": photo(
        png(2**20, 2**20), "1048576x1048576", str(2**27), "CARB_MAX_PIXELS="
    ),
    "photo above the machine's limit": Case(
        "prepare", ("256x128", "limit of 32767"), environment={"CARB_MAX_PIXELS": "32767"}
    ),
    "three photos damaged": Case(
        "prepare",
        ("3 photos cannot be used", "00000.png", "00001.png", "val/images/00000.png"),
        spoil=lambda: [
            write(f"data/demo/{name}.png", "hello")()
            for name in ("train/images/00000", "train/images/00001", "val/images/00000")
        ],
    ),
    "limit of pixels no number": Case(
        "prepare", ("CARB_MAX_PIXELS", "1e9"), environment={"CARB_MAX_PIXELS": "1e9"}
    ),
    "mask of another size": Case(
        "prepare", ("masks/00000.png", "100x50", "256x128"), spoil=save(MASK, GREY[:50, :100])
    ),
    "mask with an unknown class": Case(
        "prepare", ("masks/00000.png", "77"), spoil=save(MASK, GREY + 77)
    ),
    "mask of terapixels": mask(png(2**20, 2**20, colour=0), "CARB_MAX_PIXELS="),
}
LABELS = {
    "labels file missing": Case("prepare", ("labels.csv",), {"dataset.image_labels": "labels.csv"}),
    "labels of other classes": labels("labels.csv", "key,zebra\ntrain/00000,1\n", "zebra"),
    "labels of another encoding": labels("labels.csv", b"key,stra\xdfe\n", "UTF-8", "Excel"),
    "labels named in other capitals": Case(
        "prepare",
        ("labels.csv", "Labels.CSV is there"),
        {"dataset.image_labels": "labels.csv"},
        write("Labels.CSV", "photo,tags\n"),
    ),
    "labels with a mistake, and a photo damaged": Case(
        "prepare",
        ("labels.csv", "line 2", "'tre'"),
        {"dataset.image_labels": "labels.csv"},
        lambda: (write("labels.csv", "photo,tags\n0,tre\n")(), write(IMAGE, "hello")()),
    ),
    "tags of a photo that is not there": labels(
        "labels.csv",
        "photo,tags\ntrain/00000.png,road\ntrain/00009.png,car\n",
        "line 3",
        "00009.png",
        "did you mean",
    ),
    "tag that is no class": labels("labels.csv", "photo;tags\n0;road|tre\n", "line 2", "'tre'"),
    "labels that act when unpickled": labels("labels.npy", hostile_npy(), "posix.mkdir"),
    "labels with a header of a thousand digits": labels("labels.csv", "9" * 1000, "999..."),
    "labels of the run cut short": Case(
        "train",
        ("image_labels.csv", "line"),
        spoil=replace("data/image_labels.csv", "train/00001,", "train/00001,1,"),
    ),
}
CLASS_LISTS = {
    "list of classes missing": classes(None, "no such file"),
    "list of classes without a header": classes("road\ncar\n", "header", "road"),
    "list that names a class twice": classes(TWO + "car\n", "line 4", "car"),
    "list with a colour of no colour": classes("class,colour\nroad,red\ncar,\n", "line 2", "red"),
    "list in two files": Case(
        "prepare",
        ("own/classes.txt", "classes.csv has the same purpose"),
        OWN,
        own_folder(TWO, write("own/classes.txt", "road\ncar\n")),
    ),
}
PROPOSALS = {
    "labels proposed of another data set": Case(
        "prepare", ("dataset.name", "folder", "demo"), arguments=("propose-labels",)
    ),
    "labels proposed where there are some": Case(
        "prepare",
        ("own/labels.csv", "--force"),
        OWN,
        own_folder(TWO, write("own/labels.csv", "")),
        ("propose-labels",),
    ),
}
CASES = PROPOSALS | DATA_SETS | PICTURES | LABELS | CLASS_LISTS
