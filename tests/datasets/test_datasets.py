"""Data sets as their owners ship them: which scenes are found, how photos and masks are read."""

import contextlib
import re
from collections.abc import Callable
from pathlib import Path
from typing import get_args

import numpy as np
import pytest
from PIL import Image

from demo.drawn_dataset import draw_split
from demo.street import CLASSES, draw_scene
from pipeline.config.dataset import DatasetParams
from pipeline.datasets import ADAPTERS, load_scenes, open_dataset
from pipeline.datasets.base import Scene
from pipeline.scenes.classes import IGNORE_INDEX, LABEL_SPACES
from pipeline.scenes.image_io import read_image

CAMVID = Path(__file__).parents[3] / "shared" / "camvid"
read_mask = open_dataset("camvid", ".").read_mask
PIXELS = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 14  # [2, 3, RGB]


def test_the_schema_knows_the_data_sets() -> None:
    assert set(get_args(DatasetParams.model_fields["name"].annotation)) == set(ADAPTERS)


def save(path: Path, pixels: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


@pytest.fixture
def camvid(tmp_path: Path) -> Path:
    """Two training photos, one of them without a mask, one of val, and what should not be there."""
    root = tmp_path / "CamVid"
    for name in ("train/b.png", "train/a.png", "val/c.png"):
        save(root / name, PIXELS)
    ids = np.array([[0, 10, 11], [255, 3, 7]], dtype=np.uint8)
    for name in ("trainannot/a.png", "valannot/c.png", "trainannot/of_no_photo.png"):
        save(root / name, ids)
    for name in ("train/Thumbs.db", "train/._a.png", "train/.DS_Store", "train.txt", "train/a.jpg"):
        (root / name).write_text("stray")
    return root


def test_camvid_scenes_are_its_photos_by_name_with_their_masks(camvid: Path) -> None:
    assert load_scenes("camvid", camvid, "train") == [
        Scene(camvid / "train/a.png", camvid / "trainannot/a.png", "train", "train/a"),
        Scene(camvid / "train/b.png", None, "train", "train/b"),
    ]
    assert [scene.key for scene in load_scenes("camvid", str(camvid), "val")] == ["val/c"]


def test_camvid_masks_keep_their_classes_and_void_counts_nowhere(camvid: Path) -> None:
    mask = read_mask(camvid / "trainannot/a.png")
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[0, 10, IGNORE_INDEX], [IGNORE_INDEX, 3, 7]]


def test_drawn_scenes_come_back_as_they_were_drawn(tmp_path: Path) -> None:
    draw_split(tmp_path, "train", seed=5, count=2)
    (tmp_path / "train/images/._00000.png").write_text("stray")
    scenes = load_scenes("demo", tmp_path, "train")
    assert [scene.key for scene in scenes] == ["train/00000", "train/00001"]
    for index, scene in enumerate(scenes):
        image, mask = draw_scene(5, index)
        assert np.array_equal(read_image(scene.image), image)
        assert scene.mask is not None
        assert np.array_equal(open_dataset("demo", tmp_path).read_mask(scene.mask), mask)


@pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not on this machine")
def test_the_real_camvid_has_its_367_and_101_scenes() -> None:
    for split, count in (("train", 367), ("val", 101)):
        scenes = load_scenes("camvid", CAMVID, split)
        assert len(scenes) == len({scene.key for scene in scenes}) == count
        assert all(scene.mask is not None for scene in scenes)
    last = scenes[-1]
    assert last.mask is not None
    assert read_image(last.image).size == (480, 360)
    assert set(np.unique(read_mask(last.mask))) <= {*range(11), IGNORE_INDEX}


@pytest.mark.parametrize("name", ["camvid", "cityscapes", "demo"])
def test_a_mask_of_ids_reads_each_class_once_and_nothing_beyond_its_classes(
    tmp_path: Path, name: str
) -> None:
    dataset = open_dataset(name, tmp_path)
    seen = []
    for number in range(256):
        path = save(tmp_path / "x.png", np.array([[number]], dtype=np.uint8))
        with contextlib.suppress(ValueError):
            seen.append(int(dataset.read_mask(path)[0, 0]))
    classes = range(len(dataset.label_space.classes))
    assert sorted(one for one in seen if one != IGNORE_INDEX) == list(classes)
    assert {"train", "val"} <= set(dataset.splits)


@pytest.mark.parametrize(
    ("name", "count"), [("cityscapes", 19), ("camvid", 11), ("demo", 17), ("wilddash2", 25)]
)
def test_a_label_space_names_colours_and_asks_for_each_class_once(name: str, count: int) -> None:
    space = LABEL_SPACES[name]
    assert len(set(space.names)) == len({info.colour for info in space.classes}) == count
    assert (space.palette.shape, space.palette.dtype) == ((count, 3), np.uint8)
    assert [tuple(colour) for colour in space.palette.tolist()] == [
        info.colour for info in space.classes
    ]
    assert all(space.words({}))


def test_the_drawn_classes_are_those_of_the_demo_label_space() -> None:
    assert list(CLASSES) == LABEL_SPACES["demo"].names


def test_words_of_a_class_are_replaced_and_those_of_no_class_refused() -> None:
    space = LABEL_SPACES["cityscapes"]
    words = space.words({"car": ["automobile", "car"]})
    usual = space.words({})
    assert words[13] == ["automobile", "car"]
    assert usual[13] == ["car"]
    assert words[:13] + words[14:] == usual[:13] + usual[14:]
    with pytest.raises(ValueError, match=r"params\.yaml: clip\.class_prompts names 'cra'"):
        space.words({"cra": ["car"]})


REFUSED: list[tuple[str, str, str, str]] = [
    (
        "moon",
        ".",
        "train",
        f"params.yaml: dataset.name must be one of {', '.join(sorted(ADAPTERS))}, got 'moon'",
    ),
    ("camvid", ".", "trian", "data set 'camvid' has the splits train, val, test, not 'trian'"),
    (
        "camvid",
        "absent",
        "train",
        "params.yaml: dataset.root: absent is no folder; point it at 'camvid'",
    ),
    (
        "demo",
        ".",
        "val",
        ".: no photos of split 'val' found; 'demo' holds train/images/*.png with "
        "train/masks/*.png, and the same for val; `python -m stages.draw` draws them",
    ),
]


@pytest.mark.parametrize(("name", "root", "split", "sentence"), REFUSED)
def test_what_is_no_data_set_is_refused_in_one_sentence(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    root: str,
    split: str,
    sentence: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        load_scenes(name, root, split)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def short_header(path: Path) -> None:
    """Pillow answers this with a ValueError that names no file."""
    path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\x05IHDRaaaaabbbb")


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (half, ".*truncated.*"),
    "empty": (lambda path: path.write_bytes(b""), "an empty file"),
    "text": (lambda path: path.write_text("hello"), "cannot identify image file .*"),
    "short header": (short_header, ".*"),
    "missing": (Path.unlink, "no such file"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "a folder"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_a_spoilt_file_is_named_in_one_sentence(tmp_path: Path, kind: str) -> None:
    spoil, found = SPOILT[kind]
    noise = np.random.default_rng(0).integers(0, 11, (64, 64), dtype=np.uint8)
    path = save(tmp_path / "x.png", noise)
    spoil(path)
    for noun, read in (("picture", read_image), ("mask", read_mask)):
        pattern = rf"^{re.escape(str(path))}: not readable as a {noun} \({found}\); replace the"
        with pytest.raises(ValueError, match=pattern):
            read(path)


def test_a_mask_with_an_id_that_the_data_set_lacks_is_refused(tmp_path: Path) -> None:
    path = save(tmp_path / "x.png", np.array([[0, 3], [12, 13]], dtype=np.uint8))
    sentence = (
        f"{path}: holds id 12, which the data set does not define; check that the mask belongs to "
        "this data set"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(sentence)}$"):
        read_mask(path)
