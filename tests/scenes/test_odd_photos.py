"""Unusual and hostile images: the usual kinds are read upright, the others refused."""

import json
import os
import struct
import subprocess
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.scenes.image_io import as_photo, open_image, read_image
from pipeline.system.files import LIST
from tests.helpers import ROOT
from tests.helpers.bad_input import chunk, png
from tests.helpers.tiny_run import prepare_folder, run_stage, run_until

PIXELS = np.random.default_rng(0).integers(0, 255, (40, 80, 3), dtype=np.uint8)
OWN = {"dataset.name": "folder", "dataset.root": "own", "train.steps": 4}


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


def write_odd_photos(folder: Path) -> dict[str, tuple[int, int]]:
    """Write one of each kind; returns the upright ``(height, width)`` by name without ending."""
    photo = Image.fromarray(PIXELS)
    folder.mkdir(parents=True)
    photo.convert("CMYK").save(folder / "printed.jpg")
    photo.convert("RGBA").save(folder / "see-through.png")
    photo.convert("P").save(folder / "palette.png", transparency=b"\x00\x80")
    photo.convert("L").save(folder / "grey.JPG", "JPEG")
    photo.convert("LA").save(folder / "grey see-through.png")
    photo.convert("1").save(folder / "fax.png")
    photo.save(folder / "phone.jpg", exif=turned(6))
    photo.save(folder / "really a jpeg.png", "JPEG")
    photo.save(folder / "stra\u00dfe \u96e8.webp")
    photo.save(folder / "two\nlines.bmp")
    photo.resize((1, 1)).save(folder / "dot.png")
    photo.save(folder / "scan.TIF", compression="tiff_lzw")
    photo.save(folder / "moving.gif", save_all=True, append_images=[photo.rotate(90)])
    photo.save(folder / "saved from a browser.jfif", "JPEG")
    photo.resize((3000, 1)).save(folder / "panorama.png")
    (folder / "album.png").mkdir()
    photo.save(folder / "album.png" / "inside.PNG")
    sizes = {path.with_suffix("").name: (40, 80) for path in folder.glob("*.*") if path.is_file()}
    sizes |= {"phone": (80, 40), "dot": (1, 1), "panorama": (1, 3000), "album.png/inside": (40, 80)}
    return sizes


def test_odd_photos_go_through_the_whole_pipeline(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    sizes = write_odd_photos(tmp_path / "own" / "images")
    (tmp_path / "own" / "classes.csv").write_text("class\nroad\ncar\nsky\n")
    labels = {name: ["road", "sky"] for name in sizes}
    (tmp_path / "own" / "image_labels.json").write_text(json.dumps(labels))
    (tmp_path / "own" / "masks").mkdir()
    Image.new("L", (80, 40)).save(tmp_path / "own/masks/fax.png")  # of a training photo: not scored
    prepare_folder(tmp_path, OWN)
    run_until("report")
    assert json.loads(Path("results/segmenter.json").read_text()) == {}
    pictures = {"panels.png", "training_previews.png"}
    assert {path.name for path in Path("results/eval").iterdir()} == pictures | {LIST}
    for picture in ("eval/panels", "eval_pseudo/panels_unlabelled", "prepare/photos"):
        with Image.open(f"results/{picture}.png") as panel:
            assert panel.width > 300
    index = json.loads(Path("data/scenes.json").read_text())
    assert {photo["key"][6:]: tuple(photo["size"]) for photo in index["photos"]} == sizes
    scored = run_stage("eval", "--images", "own/images", "--out", "scored")
    assert scored.exit_code == 0, scored.output
    for name, (height, width) in sizes.items():
        with Image.open(f"scored/masks/{name}.png") as mask:
            assert mask.size == (width, height)


@pytest.mark.parametrize("ending", ["png", "tif"])
def test_a_photo_is_turned_upright_by_its_exif(tmp_path: Path, ending: str) -> None:
    path, tall = tmp_path / f"x.{ending}", PIXELS.transpose(1, 0, 2)
    upright = {1: PIXELS, 2: PIXELS[:, ::-1], 3: PIXELS[::-1, ::-1], 4: PIXELS[::-1]}
    upright |= {5: tall, 6: tall[:, ::-1], 7: tall[::-1, ::-1], 8: tall[::-1]}
    for orientation, pixels in upright.items():
        Image.fromarray(PIXELS).save(path, exif=turned(orientation))
        assert np.array_equal(np.asarray(read_image(path)), pixels)


def tiff(width: int, height: int, *, bits: int = 8, tile: int = 0) -> bytes:
    """An RGB TIFF, in one strip or one tile of ``tile`` pixels per side."""
    data = b"\x12" * min(width * height * 3 * bits // 8, 1000)
    tags = [(256, 4, 1, width), (257, 4, 1, height), (259, 3, 1, 1), (262, 3, 1, 2)]
    tags += [(277, 3, 1, 3), (258, 3, 3, 200)]
    if tile:
        tags += [(322, 4, 1, tile), (323, 4, 1, tile), (324, 4, 1, 210), (325, 4, 1, len(data))]
    else:
        tags += [(273, 4, 1, 210), (278, 4, 1, height), (279, 4, 1, len(data))]
    table = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    head = struct.pack("<2sHIH", b"II", 42, 8, len(tags)) + table + bytes(4)
    return head.ljust(200, b"\0") + struct.pack("<3H", bits, bits, bits).ljust(10, b"\0") + data


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (tiff(8, 4, bits=16), "must have 8 bits per channel"),
        (tiff(2**20, 2**20), "has 1048576x1048576 pixels"),
        (tiff(8, 4, tile=2**15), "is stored in tiles of 1073741824 pixels"),
        (tiff(80, 40), "not readable as an image"),
    ],
)
def test_a_tiff_that_would_lose_bits_or_fill_memory_is_refused(
    tmp_path: Path, content: bytes, says: str
) -> None:
    (tmp_path / "x.tif").write_bytes(content)
    with pytest.raises(ValueError, match=says):
        read_image(tmp_path / "x.tif")


def test_damaged_exif_causes_no_warning(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "x.jpg", exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    code = (
        "from pathlib import Path; from pipeline.scenes.image_io import read_image; "
        "assert read_image(Path('x.jpg')).size == (80, 40)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert (run.stdout, run.stderr) == ("", "")


@pytest.mark.filterwarnings("error")
def test_the_limit_of_pixels_is_exact_and_can_be_raised(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "x.png")
    monkeypatch.setenv("CARB_MAX_PIXELS", "3200")
    assert read_image(tmp_path / "x.png").size == (80, 40)
    monkeypatch.setenv("CARB_MAX_PIXELS", "3199")
    with pytest.raises(ValueError, match=r"has 80x40 pixels, .* limit of 3199; .*=3200 if you tru"):
        read_image(tmp_path / "x.png")
    with pytest.raises(ValueError, match="more than the limit of 3199"):
        as_photo(Image.fromarray(PIXELS))
    (tmp_path / "wide.png").write_bytes(png(30_000, 10_000))  # Pillow's own guard is at 179 million
    monkeypatch.setenv("CARB_MAX_PIXELS", "300000000")
    with open_image(tmp_path / "wide.png") as image:
        assert image.size == (30_000, 10_000)


@pytest.mark.parametrize("value", ["", "0", "1e9"])
def test_an_invalid_limit_of_pixels_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, value: str
) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "x.png")
    monkeypatch.setenv("CARB_MAX_PIXELS", value)
    with pytest.raises(ValueError, match=r"^CARB_MAX_PIXELS \(environment\) must be a whole"):
        read_image(tmp_path / "x.png")


CHUNKS = {
    "iCCP": lambda raw: b"icc\0\0" + zlib.compress(raw),
    "zTXt": lambda raw: b"Comment\0\0" + zlib.compress(raw),
    "iTXt": lambda raw: b"Comment\0\1\0\0\0" + zlib.compress(raw),
    "tEXt": lambda raw: b"Comment\0" + raw,
}


@pytest.mark.parametrize("kind", CHUNKS)
def test_a_png_with_megabytes_of_profile_or_text_is_read(tmp_path: Path, kind: str) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    extra = chunk(kind.encode(), CHUNKS[kind](b"x" * 5_000_000))
    for place in (33, len(content) - 12):  # behind IHDR, and before IEND
        (tmp_path / "x.png").write_bytes(content[:place] + extra + content[place:])
        assert np.array_equal(np.asarray(read_image(tmp_path / "x.png")), PIXELS)


def test_compressed_text_of_hundreds_of_megabytes_is_not_unpacked(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    packer = zlib.compressobj(1)
    bomb = b"".join(packer.compress(bytes(2**24)) for _ in range(16)) + packer.flush()
    for kind in ("iCCP", "zTXt", "iTXt"):
        head = CHUNKS[kind](b"").removesuffix(zlib.compress(b""))
        extra = chunk(kind.encode(), head + bomb)
        (tmp_path / "x.png").write_bytes(content[:33] + extra + content[33:])
        tracemalloc.start()
        with pytest.raises(ValueError, match=r"not readable as an image \(Decompressed data"):
            read_image(tmp_path / "x.png")
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert most < 200_000_000  # of 268


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_images_of_python_programs_are_checked_like_files(
    tmp_path: Path, dtype: type[np.number]
) -> None:
    image = Image.fromarray(PIXELS[:, :, 0].astype(dtype))
    path = tmp_path / ("x.png" if dtype is np.uint16 else "x.tif")
    image.save(path)
    with Image.open(path) as opened:
        for photo in (image, opened):
            with pytest.raises(ValueError, match=r"^an image must have 8 bits per channel, found"):
                as_photo(photo)
    with pytest.raises(ValueError, match=r"^an image must have pixels, found 0x5"):
        as_photo(Image.new("RGB", (0, 5)))


@pytest.mark.parametrize("mode", ["1", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "HSV"])
def test_images_of_8_bits_become_rgb(mode: str) -> None:
    photo = as_photo(Image.fromarray(PIXELS).convert(mode))
    assert (photo.mode, photo.size) == ("RGB", (80, 40))


@pytest.mark.parametrize(
    "photo",
    [
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 8), np.uint8),
        np.zeros((5, 8, 4), np.uint8),
        np.zeros((5, 8, 3), np.float32),
        torch.zeros(5, 8, 3, dtype=torch.uint8),
        None,
    ],
    ids=lambda photo: f"{getattr(photo, 'dtype', type(photo))} {list(getattr(photo, 'shape', []))}",
)
def test_what_is_not_a_photo_is_refused(photo: object) -> None:
    with pytest.raises(ValueError, match=r"^a photo must be a file's path, .*, got .*; convert it"):
        as_photo(photo)  # type: ignore[arg-type]


def test_an_opened_image_that_cannot_be_decoded_is_refused(tmp_path: Path) -> None:
    Image.fromarray(PIXELS).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(content[:3000])
    image = Image.open(tmp_path / "x.png")
    with image, pytest.raises(ValueError, match=r"^an image of .* mode 'RGB' is not readable"):
        as_photo(image)
