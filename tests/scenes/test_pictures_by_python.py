"""Photos that a Python program hands to a segmenter: the rules for files hold for them, too."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.scenes.image_io import as_photo, read_image

GREY = np.arange(40, dtype=np.uint8).reshape(5, 8)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_pictures_are_refused_by_the_same_sentence_as_files(
    tmp_path: Path, dtype: type[np.number]
) -> None:
    picture = Image.fromarray(GREY.astype(dtype))
    path = tmp_path / ("x.png" if dtype is np.uint16 else "x.tif")
    picture.save(path)
    said = []
    with Image.open(path) as opened:
        for photo in (picture, opened):
            with pytest.raises(ValueError, match=r"^an image must have 8 bits per ch") as caught:
                as_photo(photo)
            said.append(str(caught.value))
    if path.suffix == ".png":
        with pytest.raises(ValueError, match="must have 8 bits per channel") as caught:
            read_image(path)
        assert str(caught.value) == f"{path}: {said[1]}"


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "HSV"])
def test_pictures_of_8_bits_are_taken(mode: str) -> None:
    photo = as_photo(Image.fromarray(np.stack([GREY] * 3, axis=2)).convert("RGB").convert(mode))
    assert (photo.mode, photo.size) == ("RGB", (8, 5))


@pytest.mark.parametrize(
    "photo",
    [
        np.zeros((0, 5, 3), np.uint8),
        np.zeros((5, 0, 3), np.uint8),
        np.zeros((5, 8), np.uint8),
        np.zeros((5, 8, 4), np.uint8),
        np.zeros((5, 8, 3), np.float32),
        np.zeros((3, 5, 8), np.uint8),
        torch.zeros(5, 8, 3, dtype=torch.uint8),
        None,
        b"x.png",
    ],
    ids=lambda photo: f"{getattr(photo, 'dtype', type(photo))} {list(getattr(photo, 'shape', []))}",
)
def test_what_is_no_photo_is_refused_in_a_sentence(photo: object) -> None:
    with pytest.raises(ValueError, match=r"^a photo must be a file's path, .*, got .*; convert it"):
        as_photo(photo)  # type: ignore[arg-type]


@pytest.mark.parametrize("size", [(0, 5), (5, 0), (0, 0)])
def test_an_empty_picture_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"must have pixels, found \dx\d"):
        as_photo(Image.new("RGB", size))


def test_a_picture_that_cannot_be_decoded_is_told_in_a_sentence(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (90, 90, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "x.png")
    content = (tmp_path / "x.png").read_bytes()
    (tmp_path / "x.png").write_bytes(content[:3000])
    picture = Image.open(tmp_path / "x.png")
    with picture, pytest.raises(ValueError, match=r"^a picture of .* mode 'RGB' is not readable"):
        as_photo(picture)


def test_the_limit_of_pixels_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARB_MAX_PIXELS", "39")
    with pytest.raises(ValueError, match="more than the limit of 39"):
        as_photo(Image.fromarray(GREY))
