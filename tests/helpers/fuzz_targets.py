"""Fuzz targets: every parser of untrusted files, with a valid file for each."""

import io
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.config.params import Params, load_params
from pipeline.datasets.base import id_table, read_ids
from pipeline.datasets.folder import read_classes
from pipeline.datasets.image_label_files import read_label_file
from pipeline.datasets.wilddash2 import PanopticMasks
from pipeline.scenes.classes import LabelSpace
from pipeline.scenes.image_io import read_image
from pipeline.scenes.index import SceneIndex
from pipeline.segmenter.saved import Metadata, read_metadata
from pipeline.store.reader import PseudoMaskStore
from tests.helpers import ROOT

CLASSES = ["road", "car", "traffic light"]
IDS = (np.arange(48, dtype=np.uint8) % 3).reshape(6, 8)


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        name: of the file.
        valid: a content that it reads.
        read: reads the file and says whether what came out has the right shape and type.
        beside: further files of the folder.
        cost: how many times slower it is than the others.
    """

    name: str
    valid: bytes
    read: Callable[[Path], bool]
    beside: dict[str, bytes] = field(default_factory=dict)
    cost: int = 1


def _saved(picture: Image.Image, form: str, **options: object) -> bytes:
    file = io.BytesIO()
    picture.save(file, form, **options)
    return file.getvalue()


def _palette() -> Image.Image:
    picture = Image.fromarray(IDS)
    picture.putpalette(bytes(range(9)))
    picture.info["transparency"] = b"\x00\x80"
    return picture


def _turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    return _saved(Image.fromarray(IDS).convert("RGB"), "JPEG", exif=exif)


def _npy() -> bytes:
    file = io.BytesIO()
    content = np.empty((), object)
    content[()] = {"a": np.array([1.0, 0.0, 1.0]), "b": np.array([0, 1, 1])}
    np.save(file, content, allow_pickle=True)
    return file.getvalue()


def _labels(path: Path) -> bool:
    rows = read_label_file(path, CLASSES)
    return all(
        isinstance(key, str) and row.shape == (3,) and row.dtype == bool
        for key, row in rows.items()
    )


def _photo(path: Path) -> bool:
    photo = read_image(path)
    return photo.mode == "RGB" and np.asarray(photo).dtype == np.uint8


def _mask(path: Path) -> bool:
    mask = read_ids(path, id_table(range(3)))
    return mask.ndim == 2 and set(np.unique(mask)) <= {0, 1, 2, 255}


def _categories(path: Path) -> bool:
    found = PanopticMasks(path.parent).categories
    return all(isinstance(name, str) and "/" not in name for name in found)


def _segments(path: Path) -> bool:
    mask = PanopticMasks(path.parent).read(path)
    return mask.ndim == 2 and mask.dtype == np.uint8


def _index(path: Path) -> bool:
    index = SceneIndex.read(path)
    for photo in index.photos:
        try:
            inside = photo.path(path.parent).resolve().is_relative_to(path.parent.resolve())
        except ValueError:
            continue
        assert inside
    return index.label_space.palette.shape == (len(index.label_space.classes), 3)


def _store(path: Path) -> bool:
    store = PseudoMaskStore.open(path.parent)
    logits = store.read(store.keys[0], store.levels[0])
    return logits.ndim == 3 and len(store.classes) > 0


PANOPTIC = json.dumps(
    {"annotations": [{"file_name": "x.png", "segments_info": [{"id": 1, "category_id": 7}]}]}
).encode()
SEGMENTS = _saved(Image.fromarray(IDS[..., None] // 2 * np.array([1, 0, 0], np.uint8)), "PNG")
ABOUT = json.dumps(
    {
        "classes": [{"name": name, "colour": [1, 2, 3]} for name in CLASSES],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.2, 0.2, 0.2],
        "base_size": [64, 128],
        "stride": 32,
        "extra": {"dataset": "demo"},
    }
).encode()
CONFIG = json.dumps(
    {"_model_class": "Unet", "encoder_name": "resnet18", "classes": 3, "decoder_channels": [8, 4]}
).encode()
INDEX = json.dumps(
    {
        "dataset": "demo",
        "classes": [{"name": "road", "colour": [1, 2, 3], "words": ["road"]}],
        "photos": [
            {"key": "a", "split": "train", "image": "x/a.png", "size": [4, 8], "digest": "0"}
        ],
    }
).encode()
JPEG = _saved(Image.fromarray(IDS).convert("CMYK"), "JPEG")
TARGETS = {
    "labels as CSV": Target("x.csv", b"key,road,car,traffic light\na,1,0,1\nb,0,1,0\n", _labels),
    "labels as JSON": Target("x.json", b'{"a": ["road"], "b": ["car", "traffic light"]}', _labels),
    "labels as npy": Target("x.npy", _npy(), _labels),
    "list of classes": Target(
        "classes.csv",
        b"class,words,colour\nroad,street|lane,#112233\ncar,,\n",
        lambda path: isinstance(read_classes(path), LabelSpace),
    ),
    "panoptic annotations": Target("panoptic.json", PANOPTIC, _categories),
    "panoptic mask": Target("x.png", SEGMENTS, _segments, {"panoptic.json": PANOPTIC}),
    "mask": Target("x.png", _saved(_palette(), "PNG"), _mask),
    "photo PNG": Target("x.png", _saved(_palette(), "PNG", transparency=b"\x00\x80"), _photo),
    "photo JPEG": Target("x.jpg", _turned(), _photo),
    "photo CMYK": Target("x.jpg", JPEG, _photo),
    "photo WebP": Target("x.webp", _saved(Image.fromarray(IDS).convert("RGB"), "WEBP"), _photo),
    "photo BMP": Target("x.bmp", _saved(_palette(), "BMP"), _photo),
    "index": Target("scenes.json", INDEX, _index),
    "about a segmenter": Target(
        "carb.json",
        ABOUT,
        lambda path: isinstance(read_metadata(path.parent), Metadata),
        {"config.json": CONFIG, "model.safetensors": b""},
    ),
    "configuration of a segmenter": Target(
        "config.json",
        CONFIG,
        lambda path: isinstance(read_metadata(path.parent), Metadata),
        {"carb.json": ABOUT, "model.safetensors": b""},
    ),
    "parameters": Target(
        "params.yaml",
        (ROOT / "params.yaml").read_bytes(),
        lambda path: isinstance(load_params(path), Params),
        cost=20,
    ),
    "store": Target("zarr.json", b"", _store, cost=5),
}
