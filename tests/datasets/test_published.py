"""Published data sets in miniature: which scenes are found, how masks are read, what is missing."""

import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
from PIL import Image

from demo.drawn_dataset import draw_split
from demo.street import CLASSES, draw_scene
from pipeline.config.dataset import DatasetParams
from pipeline.datasets import ADAPTERS, camvid, load_scenes, open_dataset, wilddash2
from pipeline.datasets.base import Scene, id_table, read_ids
from pipeline.scenes.classes import IGNORE_INDEX, LABEL_SPACES
from pipeline.scenes.image_io import read_image
from tests.helpers.bad_input import png

CAMVID = Path(__file__).parents[3] / "shared" / "camvid"


def save(path: Path, pixels: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.array(pixels, np.uint8)).save(path)
    return path


def keys(name: str, root: Path, split: str) -> list[str]:
    return [scene.key for scene in load_scenes(name, root, split)]


def test_the_schema_has_all_data_sets() -> None:
    assert set(get_args(DatasetParams.model_fields["name"].annotation)) == set(ADAPTERS)


def test_names_and_colours_of_classes_are_unique() -> None:
    for name, count in {"cityscapes": 19, "camvid": 11, "demo": 17, "wilddash2": 25}.items():
        space = LABEL_SPACES[name]
        assert len(set(space.names)) == len({info.colour for info in space.classes}) == count
        assert (space.palette.shape, space.palette.dtype) == ((count, 3), np.uint8)
        assert all(space.words({}))


def test_words_of_a_class_can_be_replaced() -> None:
    space = LABEL_SPACES["cityscapes"]
    words, usual = space.words({"car": ["automobile", "car"]}), space.words({})
    assert (words[13], usual[13]) == (["automobile", "car"], ["car"])
    assert words[:13] + words[14:] == usual[:13] + usual[14:]
    with pytest.raises(ValueError, match=r"params\.yaml: clip\.class_prompts names 'cra'"):
        space.words({"cra": ["car"]})


@pytest.mark.parametrize(
    ("name", "root", "split", "sentence"),
    [
        ("moon", ".", "train", "params.yaml: dataset.name must be one of camvid, cityscapes, .*"),
        ("camvid", ".", "trian", "data set 'camvid' has the splits train, val, test, not 'trian'"),
        ("camvid", "no", "val", "params.yaml: dataset.root: no is not a folder; set it to .*"),
        ("demo", ".", "val", r"\.: no photos of split 'val' found; 'demo' needs train/images/.*"),
    ],
)
def test_an_invalid_data_set_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, root: str, split: str, sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        load_scenes(name, root, split)


def test_drawn_scenes_are_read_as_drawn(tmp_path: Path) -> None:
    assert list(CLASSES) == LABEL_SPACES["demo"].names
    draw_split(tmp_path, "train", seed=5, count=2)
    (tmp_path / "train/images/._00000.png").write_text("stray")
    scenes = load_scenes("demo", tmp_path, "train")
    assert [scene.key for scene in scenes] == ["train/00000", "train/00001"]
    for index, scene in enumerate(scenes):
        image, mask = draw_scene(5, index)
        assert np.array_equal(read_image(scene.image), image)
        assert scene.mask is not None
        assert np.array_equal(open_dataset("demo", tmp_path).read_mask(scene.mask), mask)


def test_camvid_in_the_segnet_layout(tmp_path: Path) -> None:
    for name in ("train/b", "train/a", "trainannot/a", "trainannot/of_no_photo", "val/c"):
        save(tmp_path / f"{name}.png", [[0, 10, 11], [255, 3, 7]])
    for name in ("train/Thumbs.db", "train/._a.png", "train.txt", "train/a.jpg"):
        (tmp_path / name).write_text("stray")
    assert load_scenes("camvid", tmp_path, "train") == [
        Scene(tmp_path / "train/a.png", tmp_path / "trainannot/a.png", "train", "train/a"),
        Scene(tmp_path / "train/b.png", None, "train", "train/b"),
    ]
    mask = open_dataset("camvid", tmp_path).read_mask(tmp_path / "trainannot/a.png")
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[0, 10, IGNORE_INDEX], [IGNORE_INDEX, 3, 7]]


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """CamVid's original layout."""
    names = "0001TP_006690", "0001TP_008550", "0006R0_f00930", "0016E5_07959", "Seq05VD_f00000"
    pixels = [[(128, 0, 192), (0, 64, 64), (0, 0, 0)], [(192, 0, 192), (192, 192, 0), (64, 0, 64)]]
    for name in names:
        save(tmp_path / f"701_StillsRaw_full/{name}.png", pixels)
        save(tmp_path / f"LabeledApproved_full/{name}_L.png", pixels)
    return tmp_path


def test_the_original_camvid_is_split_as_published_and_reduced_to_11_classes(
    original: Path,
) -> None:
    assert keys("camvid", original, "train") == ["train/0001TP_006690", "train/0006R0_f00930"]
    assert keys("camvid", original, "test") == ["test/0001TP_008550", "test/Seq05VD_f00000"]
    (scene,) = load_scenes("camvid", original, "val")
    assert scene.mask == original / "LabeledApproved_full/0016E5_07959_L.png"
    mask = open_dataset("camvid", original).read_mask(scene.mask)
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[3, 6, IGNORE_INDEX], [10, 5, 1]]
    colours = [camvid.VOID, *(colour for group in camvid.COLOURS.values() for colour in group)]
    assert len(colours) == len(set(colours)) == 32
    assert list(camvid.COLOURS) == LABEL_SPACES["camvid"].names


def test_unknown_colours_and_photos_of_the_original_camvid_are_refused(original: Path) -> None:
    path = save(original / "LabeledApproved_full/0016E5_07959_L.png", [[(1, 2, 3)]])
    with pytest.raises(ValueError, match=r"_L\.png: contains the colour \(1, 2, 3\), which Cam"):
        open_dataset("camvid", original).read_mask(path)
    for name in ("holiday", "0016E5_x", "0099XX_00001"):
        path = save(original / f"701_StillsRaw_full/{name}.png", [[0]])
        with pytest.raises(ValueError, match=rf"{name}\.png: not a photo of CamVid; move it"):
            load_scenes("camvid", original, "train")
        path.unlink()


@pytest.mark.skipif(not CAMVID.is_dir(), reason="CamVid is not on this machine")
def test_the_real_camvid_has_367_and_101_scenes() -> None:
    for split, count in (("train", 367), ("val", 101)):
        scenes = load_scenes("camvid", CAMVID, split)
        assert len({scene.key for scene in scenes}) == count
        assert {camvid.split_of(scene.image.stem) for scene in scenes} == {split}
        assert all(scene.mask is not None for scene in scenes)


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    """Both archives unpacked side by side, with the files that are not read."""
    for frame in ("train/ulm/ulm_1", "train/aachen/aachen_1", "val/bonn/bonn_1", "test/x/x_1"):
        save(tmp_path / f"leftImg8bit/{frame}_leftImg8bit.png", np.zeros((2, 4, 3)))
        ids = [[7, 0, 33, 26], [3, 24, 255, 1]]
        save(tmp_path / f"gtFine/{frame}_gtFine_labelIds.png", ids)
        instances = Image.fromarray(np.array(ids, np.uint16) * 1000)
        instances.save(tmp_path / f"gtFine/{frame}_gtFine_instanceIds.png")
        (tmp_path / f"gtFine/{frame}_gtFine_polygons.json").write_text("{}")
    for name in ("._ulm_1_leftImg8bit.png", "Thumbs.db"):
        (tmp_path / "leftImg8bit/train/ulm" / name).write_text("stray")
    return tmp_path


def test_cityscapes_is_read_by_city_and_frame_in_train_ids(cityscapes: Path) -> None:
    first, second = load_scenes("cityscapes", cityscapes, "train")
    assert first == Scene(
        cityscapes / "leftImg8bit/train/aachen/aachen_1_leftImg8bit.png",
        cityscapes / "gtFine/train/aachen/aachen_1_gtFine_labelIds.png",
        "train",
        "train/aachen_1",
    )
    assert second.key == "train/ulm_1"
    (scene,) = load_scenes("cityscapes", cityscapes, "test")
    assert (scene.key, scene.mask) == ("test/x_1", None)  # its published masks are empty
    (scene,) = load_scenes("cityscapes", cityscapes, "val")
    assert scene.mask is not None
    read = open_dataset("cityscapes", cityscapes).read_mask
    assert read(scene.mask).tolist() == [[0, 255, 18, 13], [255, 11, 255, 255]]
    with pytest.raises(ValueError, match=r"a mask must have 8 bits per channel, found 16 or more"):
        read(next(cityscapes.rglob("*_instanceIds.png")))


@pytest.mark.parametrize(
    ("missing", "renamed", "sentence"),
    [
        ("leftImg8bit", "x", r"no folder leftImg8bit; unpack leftImg8bit_trainvaltest\.zip here$"),
        ("gtFine", "x", r"no folder gtFine; unpack gtFine_trainvaltest\.zip here$"),
        ("gtFine", "gtCoarse", r"no folder gtFine: only gtCoarse, .*; unpack gtFine_"),
        ("gtFine/val", "x", r"gtFine/val: no \*_gtFine_labelIds\.png .*; unpack gtFine_trainval"),
    ],
)
def test_a_missing_archive_is_named(
    cityscapes: Path, missing: str, renamed: str, sentence: str
) -> None:
    (cityscapes / missing).rename(cityscapes / renamed)
    with pytest.raises(ValueError, match=sentence):
        load_scenes("cityscapes", cityscapes, "val")


NAMES = [f"aa{number:04d}_100000" for number in range(12)]


def write_json(root: Path, segments: dict[int, int]) -> None:
    info = [{"id": key, "category_id": value} for key, value in segments.items()]
    content = [{"file_name": f"{name}.png", "segments_info": info} for name in NAMES]
    (root / "panoptic.json").write_text(json.dumps({"annotations": content}))


@pytest.fixture
def wilddash(tmp_path: Path) -> Path:
    """Masks with segment ids beyond one byte: 26 is a car, 38 road marking, 9 parking, 0 void."""
    ids = np.array([[5, 5, 70_000], [300, 0, 5]])
    colours = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=-1)
    for name in NAMES:
        save(tmp_path / f"images/{name}.jpg", np.zeros((2, 3, 3)))
        save(tmp_path / f"panoptic/{name}.png", colours)
    write_json(tmp_path, {5: 26, 70_000: 38, 300: 9})
    return tmp_path


def test_wilddash_is_split_by_name_and_its_segments_become_classes(wilddash: Path) -> None:
    train, val = (keys("wilddash2", wilddash, split) for split in ("train", "val"))
    assert sorted(key.split("/")[1] for key in train + val) == NAMES
    assert val == [f"val/{name}" for name in NAMES if wilddash2.split_of(name) == "val"]
    shares = [wilddash2.split_of(f"photo {number}") for number in range(2000)]
    assert 0.12 < shares.count("val") / len(shares) < 0.18
    mask = open_dataset("wilddash2", wilddash).read_mask(wilddash / f"panoptic/{NAMES[0]}.png")
    assert mask.dtype == np.uint8
    assert mask.tolist() == [[15, 15, 24], [IGNORE_INDEX, IGNORE_INDEX, 15]]
    assert len(set(wilddash2.CATEGORY_IDS)) == len(LABEL_SPACES["wilddash2"].classes)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        (None, r"panoptic\.json: no such file; unpack wd_public_02\.zip here$"),
        ("{", r"panoptic\.json: not readable as COCO panoptic annotations \(JSONDecodeError: .*\)"),
        ("{}", r"panoptic\.json: not readable as COCO panoptic annotations \(KeyError: .*\)"),
    ],
)
def test_an_invalid_panoptic_json_is_refused(
    wilddash: Path, content: str | None, sentence: str
) -> None:
    (wilddash / "panoptic.json").unlink()
    if content is not None:
        (wilddash / "panoptic.json").write_text(content)
    with pytest.raises(ValueError, match=sentence):
        load_scenes("wilddash2", wilddash, "train")


def test_wilddash_files_that_do_not_match_are_named(wilddash: Path) -> None:
    mask = wilddash / f"panoptic/{NAMES[0]}.png"
    with pytest.raises(ValueError, match=r"panoptic\.json: has no entry for other\.png"):
        open_dataset("wilddash2", wilddash).read_mask(wilddash / "panoptic/other.png")
    write_json(wilddash, {5: 26, 300: 9})
    with pytest.raises(ValueError, match=r"contains segment 70000, which is not in panoptic\.json"):
        open_dataset("wilddash2", wilddash).read_mask(mask)
    save(mask, np.zeros((2, 3)))
    with pytest.raises(ValueError, match="a panoptic mask must be 8-bit RGB, found uint8"):
        open_dataset("wilddash2", wilddash).read_mask(mask)
    (wilddash / f"images/{NAMES[3]}.jpg").unlink()
    with pytest.raises(ValueError, match=rf"json: names images/{NAMES[3]}\.jpg, which is missing$"):
        load_scenes("wilddash2", wilddash, wilddash2.split_of(NAMES[3]))


@pytest.mark.parametrize("name", ["camvid", "cityscapes", "demo"])
def test_each_class_has_one_id_and_other_ids_are_refused(tmp_path: Path, name: str) -> None:
    dataset = open_dataset(name, tmp_path)
    table = dataset.read_mask.keywords["table"]  # type: ignore[attr-defined]
    classes = range(len(dataset.label_space.classes))
    assert sorted(table[(table >= 0) & (table != IGNORE_INDEX)]) == list(classes)
    path = save(tmp_path / "x.png", [[int(np.flatnonzero(table < 0)[0])]])
    with pytest.raises(
        ValueError, match=r"x\.png: contains id \d+, which the data set does not def"
    ):
        dataset.read_mask(path)


def packed(ids: np.ndarray, depth: int) -> bytes:
    """The rows of a PNG whose pixels take ``depth`` bits."""
    bits = (ids[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    return b"".join(b"\0" + np.packbits(row.reshape(-1)).tobytes() for row in bits)


@pytest.mark.parametrize(("depth", "colour"), [(2, 0), (4, 0), (8, 0), (1, 3), (4, 3), (8, 3)])
def test_ids_are_read_as_stored_at_every_depth(tmp_path: Path, depth: int, colour: int) -> None:
    ids = np.random.default_rng(0).integers(0, 2, (5, 9), dtype=np.uint8) * min(2**depth - 1, 10)
    content = png(9, 5, depth=depth, colour=colour, rows=packed(ids, depth))
    if colour == 3:  # a palette, which precedes the pixels; 0 is grey
        kind = b"PLTE" + bytes(range(48))[: 3 * min(2**depth, 16)]
        chunk = struct.pack(">I", len(kind) - 4) + kind + struct.pack(">I", zlib.crc32(kind))
        content = content[:33] + chunk + content[33:]
    (tmp_path / "mask.png").write_bytes(content)
    assert np.array_equal(read_ids(tmp_path / "mask.png", id_table(range(11))), ids)


@pytest.mark.parametrize(
    ("mode", "format", "found"),
    [
        ("L", "JPEG", "must be a PNG, found JPEG"),
        ("RGB", "WEBP", "must be a PNG, found WEBP"),
        ("1", "PNG", "must be one 8-bit channel of class ids"),
        ("RGBA", "PNG", "must be one 8-bit channel of class ids"),
        ("I;16", "PNG", "must have 8 bits per channel"),
    ],
)
def test_masks_that_may_be_misread_are_refused(
    tmp_path: Path, mode: str, format: str, found: str
) -> None:
    path = tmp_path / "mask.png"
    Image.new("L", (9, 5)).convert(mode).save(path, format)
    with pytest.raises(ValueError, match=rf"mask\.png: a mask {found}"):
        read_ids(path, id_table(range(11)))
    if format != "PNG":
        with pytest.raises(ValueError, match="must be a PNG"):
            camvid.read_colours(path)


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def short_header(path: Path) -> None:
    """Pillow's ValueError for this names no file."""
    path.write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\x05IHDRaaaaabbbb")


DAMAGED: dict[str, tuple[Callable[[Path], object], str]] = {
    "truncated": (half, ".*truncated.*"),
    "empty": (lambda path: path.write_bytes(b""), "an empty file"),
    "text": (lambda path: path.write_text("hello"), "cannot identify image file .*"),
    "short header": (short_header, ".*"),
    "missing": (Path.unlink, "no such file"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "a folder"),
}


@pytest.mark.parametrize("kind", DAMAGED)
def test_a_damaged_file_is_named(tmp_path: Path, kind: str) -> None:
    damage, found = DAMAGED[kind]
    path = save(tmp_path / "x.png", np.random.default_rng(0).integers(0, 11, (64, 64)))
    damage(path)
    for noun in ("an image", "a mask"):
        pattern = rf"^{re.escape(str(path))}: not readable as {noun} \({found}\); replace the"
        with pytest.raises(ValueError, match=pattern):
            read_image(path) if noun == "an image" else read_ids(path, id_table(range(11)))
