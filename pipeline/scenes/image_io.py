"""Image reading: a photo as upright RGB, from a file or from what Python programs hold."""

from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.scenes.safe_images import (
    FORMATS,
    apply_exif_orientation,
    max_pixels,
    open_picture,
    picture_fault,
)
from pipeline.system.text import error_text

_ENDINGS = [".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"]
PHOTO_ENDINGS = (*_ENDINGS, *([".avif"] if "AVIF" in FORMATS else []))


def read_image(path: Path) -> Image.Image:
    """Read a photo as upright RGB.

    Raises:
        ValueError: see `pipeline.scenes.safe_images.open_picture`.
    """
    with open_picture(path, "picture") as picture:
        return _upright_rgb(picture)


def as_photo(image: str | Path | Image.Image | np.ndarray) -> Image.Image:
    """A photo in any form that Python programs have, as upright RGB.

    Args:
        image: a file, a Pillow picture, or ``[H, W, 3]`` uint8 RGB.

    Raises:
        ValueError: it is none of these, or the file is not readable.
    """
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        return _decoded(image)
    kind = type(image)
    found = f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")
    if isinstance(image, np.ndarray):
        found = f"{'' if image.size else 'an empty '}{image.dtype} {list(image.shape)}"
    if (
        not isinstance(image, np.ndarray)
        or image.dtype != np.uint8
        or image.shape[2:] != (3,)
        or not image.size
    ):
        raise ValueError(
            "a photo must be a file's path, a Pillow picture, or a uint8 array of [H, W, 3] (RGB), "
            f"got {found}; convert it"
        )
    return Image.fromarray(image)


def _decoded(picture: Image.Image) -> Image.Image:
    """A picture that somebody else opened or made, checked as one of a file."""
    if fault := picture_fault(picture, "picture", max_pixels()):
        raise ValueError(fault)
    try:
        return _upright_rgb(picture)
    except MemoryError:
        raise
    except Exception as error:  # decoded only now; Pillow raises many kinds
        raise ValueError(
            f"a picture of Pillow's mode '{picture.mode}' is not readable ({error_text(error)}); "
            "replace it, or convert it to RGB"
        ) from None


def _upright_rgb(picture: Image.Image) -> Image.Image:
    # Palettes may carry transparency; Pillow wants to see it as a channel before it is dropped.
    plain = picture.convert("RGBA") if "transparency" in picture.info else picture
    return apply_exif_orientation(plain.convert("RGB"), picture)
