"""Safe image loading: size and bit depth are checked before decoding; photos become upright RGB.

A file of one kilobyte may claim terapixels. Pillow's own limit warns at one size and fails at
another, for the whole process; one limit of our own replaces it.
"""

import math
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image, PngImagePlugin

from pipeline.system.text import error_text

LIMIT = "CARB_MAX_PIXELS"  # environment variable, not a parameter: it changes no result
DEFAULT_LIMIT = 2**27
# Formats by Pillow's names; its other readers are never tried. Some builds lack AVIF.
AVIF = ["AVIF"] if find_spec("PIL._avif") else []
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP", *AVIF)
_ENDINGS = [".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"]
PHOTO_ENDINGS = (*_ENDINGS, *([".avif"] if AVIF else []))
MASK_FORMATS = ("BMP", "PNG")  # formats of masks, whose ids must not change
ORIENTATION = 0x0112  # EXIF tag
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_QUARTER_TURNS = {UPRIGHT[tag] for tag in (5, 6, 7, 8)}
TILE = (322, 323)  # TIFF tags: width and height of the tiles that are decoded at once
_NOT_UTF8 = re.compile("[\udc80-\udcff]")  # surrogates, by which Python keeps undecodable bytes
Image.MAX_IMAGE_PIXELS = None
# Warnings about damaged EXIF and the like name no file, and the pixels are intact.
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
# By default Pillow refuses a PNG with more than 1 MB of ICC profile or text in one chunk. Its limit
# for all texts together, 64 MB, protects against bombs.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY


def max_pixels() -> int:
    """Maximum number of pixels in an image: ``CARB_MAX_PIXELS``, else ``DEFAULT_LIMIT``.

    Raises:
        ValueError: the environment variable is not a positive whole number.
    """
    text = os.environ.get(LIMIT, str(DEFAULT_LIMIT))
    if not re.fullmatch("[1-9][0-9]{0,17}", text):
        raise ValueError(
            f"{LIMIT} (environment) must be a whole number of pixels above 0, got {text!r}; "
            "correct it, or unset it"
        )
    return int(text)


@contextmanager
def open_image(path: Path, kind: str = "image") -> Iterator[Image.Image]:
    """Open an untrusted image file; inside the ``with``, only decode and convert it.

    Args:
        path: the file.
        kind: ``image`` or ``mask``, for the error message; a mask must be in a lossless format.

    Raises:
        ValueError: the file is missing, truncated, not an image, too large, or has more than 8 bits
            per channel; errors of decoding inside the ``with`` included.
    """
    limit, fault = max_pixels(), ""
    try:
        with Image.open(path, formats=FORMATS) as image:
            fault = image_fault(image, kind, limit)
            if not fault:
                yield image
    except MemoryError:
        raise
    except Exception as error:  # Pillow raises many kinds for damaged files
        raise ValueError(
            f"{path}: not readable as {_a(kind)} ({_found(path, error)}); replace the file"
        ) from None
    if fault:
        raise ValueError(f"{path}: {fault}")


def _a(kind: str) -> str:
    return f"{'an' if kind == 'image' else 'a'} {kind}"


def image_fault(image: Image.Image, kind: str, limit: int) -> str:
    """Why an image must not be decoded, judged by its header; empty if it may be."""
    width, height = image.size
    if not width * height:
        return f"{_a(kind)} must have pixels, found {width}x{height}; replace it"
    tags = getattr(image, "tag_v2", {})
    tile = math.prod(int(tags.get(tag, 1)) for tag in TILE)
    if tile > max(limit, 2**20):
        return f"is stored in tiles of {tile} pixels, the limit is {limit}; save it again"
    if width * height > limit:
        return (
            f"has {width}x{height} pixels, more than the limit of {limit}; make it smaller, or set "
            f"{LIMIT}={width * height} if you trust it"
        )
    if kind == "mask" and image.format not in MASK_FORMATS:
        return (
            f"a mask must be a PNG, found {image.format}, which does not keep ids exactly; "
            "export it as PNG"
        )
    # Pillow clips the first kind at 255 and drops the lower byte of the second.
    if image.mode.startswith(("I", "F")) or re.search(";16[BLN]", stored_mode(image)):
        return (
            f"{_a(kind)} must have 8 bits per channel, found 16 or more (Pillow's mode "
            f"'{image.mode}'); convert it"
        )
    return ""


def stored_mode(image: Image.Image) -> str:
    """How the file stores a pixel, as Pillow writes it, such as ``L;4``; empty once decoded."""
    tiles = getattr(image, "tile", [])  # WebP has none, and always 8 bits
    return f"{tiles[0].args}" if tiles else ""


def _found(path: Path, error: Exception) -> str:
    """What was found instead of an image."""
    if path.is_symlink() and not path.exists():
        return "a broken link"
    if not path.exists():
        return "no such file"
    if path.is_dir():
        return "a folder"
    return error_text(error) if path.stat().st_size else "an empty file"


def is_animated(path: Path) -> bool:
    """Whether a file contains several images, such as frames or pages; only the first is read."""
    try:
        with Image.open(path, formats=FORMATS) as image:
            return bool(getattr(image, "is_animated", False))
    except Exception:  # a later frame is damaged; the first was read
        return False


def read_image(path: Path) -> Image.Image:
    """Read a photo as upright RGB.

    Raises:
        ValueError: see `open_image`.
    """
    with open_image(path) as image:
        return _upright_rgb(image)


def upright_size(path: Path) -> tuple[int, int]:
    """``(height, width)`` of a photo as `read_image` returns it, from its header.

    Raises:
        ValueError: see `open_image`.
    """
    with open_image(path) as image:
        turned = _turn(image) in _QUARTER_TURNS
        return (image.width, image.height) if turned else (image.height, image.width)


def as_photo(image: str | Path | Image.Image | np.ndarray) -> Image.Image:
    """Convert a photo in any usual form to upright RGB.

    Args:
        image: a file, a Pillow image, or ``[H, W, 3]`` uint8 RGB.

    Raises:
        ValueError: it is none of these, or cannot be read.
    """
    if isinstance(image, str | Path):
        return read_image(Path(image))
    if isinstance(image, Image.Image):
        return _checked_rgb(image)
    found = f"{type(image).__module__}.{type(image).__qualname__}".removeprefix("builtins.")
    if isinstance(image, np.ndarray):
        if image.dtype == np.uint8 and image.shape[2:] == (3,) and image.size:
            return Image.fromarray(image)
        found = f"{'' if image.size else 'an empty '}{image.dtype} {list(image.shape)}"
    raise ValueError(
        "a photo must be a file's path, a Pillow image, or a uint8 array of [H, W, 3] (RGB), "
        f"got {found}; convert it"
    )


def _checked_rgb(image: Image.Image) -> Image.Image:
    """Check and convert an image that the caller opened or made."""
    if fault := image_fault(image, "image", max_pixels()):
        raise ValueError(fault)
    try:
        return _upright_rgb(image)
    except MemoryError:
        raise
    except Exception as error:  # decoded only now; Pillow raises many kinds
        raise ValueError(
            f"an image of Pillow's mode '{image.mode}' is not readable ({error_text(error)}); "
            "replace it, or convert it to RGB"
        ) from None


def _upright_rgb(image: Image.Image) -> Image.Image:
    # Pillow drops the transparency of a palette only as an alpha channel.
    plain = image.convert("RGBA") if "transparency" in image.info else image
    pixels = plain.convert("RGB")
    turn = _turn(image)
    return pixels if turn is None else pixels.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """How a photo must be turned to be upright.

    Pillow's `exif_transpose` also rewrites the EXIF, and fails on what it cannot read.
    """
    try:
        return UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # damaged EXIF; the pixels are intact
        return None


def is_safe_filename(name: str) -> bool:
    """Whether a text is a file name only: no folder, not hidden, printable, at most 255 bytes."""
    plain = name.isprintable() and not re.search(r"[/\\]|^\.|^$", name)
    return plain and len(name.encode("utf-8", "replace")) <= 255


def check_name(path: Path) -> None:
    """Refuse a path that the UTF-8 tables of photos cannot contain.

    Raises:
        ValueError: it is not UTF-8, or contains a carriage return; names the file.
    """
    written = os.path.abspath(path)
    if not written.isascii() and _NOT_UTF8.search(written):
        raise ValueError(f"{written!a}: has a name that is not UTF-8; rename it")
    if "\r" in written:  # Python's csv writes it without quotes, and then cannot read it
        raise ValueError(f"{written!a}: has a carriage return in its name; rename it")


def written_path(root: Path, written: str) -> Path:
    """Path below ``root`` of a file that an index names; links are followed.

    Raises:
        ValueError: the path is absolute, or contains ``..``.
    """
    if Path(written).is_absolute() or ".." in Path(written).parts:
        raise ValueError(f"{written}: leads out of {root}; run `dvc repro prepare`")
    check_name(root / written)
    return root / written
