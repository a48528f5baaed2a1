"""Safe image reading: size and bit depth are checked before decoding, photos come as upright RGB.

A file of a kilobyte may claim terapixels. Pillow's own guard warns at one size and refuses at
another, for the whole process, so it is switched off here and replaced by one limit. Paths that a
data set's files contain must stay in its folder; links were made by the user and are followed.
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

LIMIT = "CARB_MAX_PIXELS"  # environment variable; no parameter: it changes no result
DEFAULT_LIMIT = 2**27
# Pillow's names; its other readers are never tried. It can be built without AVIF.
AVIF = ["AVIF"] if find_spec("PIL._avif") else []
FORMATS = ("BMP", "GIF", "JPEG", "PNG", "TIFF", "WEBP", *AVIF)
_ENDINGS = [".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp"]
PHOTO_ENDINGS = (*_ENDINGS, *([".avif"] if "AVIF" in FORMATS else []))
EXACT = ("BMP", "PNG")  # formats that keep each value: a mask's ids must not change
ORIENTATION = 0x0112  # tag of EXIF
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_NO_TEXT = re.compile("[\udc80-\udcff]")  # how Python stores bytes of a name that are not UTF-8
TILE = (322, 323)  # tags of TIFF: width and height of the pieces that are decoded at once
Image.MAX_IMAGE_PIXELS = None
# Of damaged EXIF and the like: the lines name no file, and the pixels are whole.
warnings.filterwarnings("ignore", category=UserWarning, module="PIL")
# Pillow refuses a PNG with more than 1 MB of unpacked ICC profile or text in one chunk. All texts
# together have a limit of their own, 64 MB, which is enough against bombs.
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY


def max_pixels() -> int:
    """Pixels that a picture may have on this machine.

    Raises:
        ValueError: the environment variable holds something else than a number of pixels.
    """
    text = os.environ.get(LIMIT, str(DEFAULT_LIMIT))
    if not re.fullmatch("[1-9][0-9]{0,17}", text):
        raise ValueError(
            f"{LIMIT} (environment) must be a whole number of pixels above 0, got {text!r}; "
            "correct it, or unset it"
        )
    return int(text)


@contextmanager
def open_picture(path: Path, kind: str) -> Iterator[Image.Image]:
    """Open an image from outside; only decode and convert it inside the ``with``.

    Args:
        path: its file.
        kind: what it should be, for the message: ``picture`` or ``mask``.

    Raises:
        ValueError: the file is missing, truncated, no picture, too large, or of more than 8 bits a
            channel; also where the fault shows only inside the ``with``.
    """
    limit, fault = max_pixels(), ""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            fault = picture_fault(picture, kind, limit)
            if not fault:
                yield picture
    except MemoryError:
        raise
    except Exception as error:  # a damaged file makes Pillow raise many kinds
        raise ValueError(
            f"{path}: not readable as a {kind} ({_found(path, error)}); replace the file"
        ) from None
    if fault:
        raise ValueError(f"{path}: {fault}")


def picture_fault(picture: Image.Image, kind: str, limit: int) -> str:
    """Why an image must not be decoded, according to its header; empty if it may be."""
    width, height = picture.size
    if not width * height:
        return f"a {kind} must have pixels, found {width}x{height}; replace it"
    tags = getattr(picture, "tag_v2", {})
    piece = math.prod(int(tags.get(tag, 1)) for tag in TILE)
    if piece > max(limit, 2**20):
        return f"is stored in pieces of {piece} pixels, the limit is {limit}; save it anew"
    if width * height > limit:
        return (
            f"has {width}x{height} pixels, more than the limit of {limit}; make it smaller, or set "
            f"{LIMIT}={width * height} if you trust it"
        )
    if kind == "mask" and picture.format not in EXACT:
        return (
            f"a mask must be a PNG, found {picture.format}, which does not keep ids exactly; "
            "export it as PNG"
        )
    # Pillow cuts the first kind off at 255, and drops the low half of the other.
    if picture.mode.startswith(("I", "F")) or re.search(";16[BLN]", stored_mode(picture)):
        return (
            f"a {kind} must have 8 bits a channel, found 16 or more (Pillow's mode "
            f"'{picture.mode}'); convert it"
        )
    return ""


def stored_mode(picture: Image.Image) -> str:
    """How the file stores a pixel, in Pillow's words such as ``L;4``; nothing once decoded."""
    tiles = getattr(picture, "tile", [])  # a WebP has none, and 8 bits always
    return f"{tiles[0].args}" if tiles else ""


def _found(path: Path, error: Exception) -> str:
    """What was found instead of an image."""
    if path.is_symlink() and not path.exists():
        return "a link that leads nowhere"
    if not path.exists():
        return "no such file"
    if path.is_dir():
        return "a folder"
    if path.stat().st_size == 0:
        return "an empty file"
    return error_text(error)


def holds_several(path: Path) -> bool:
    """Whether a file holds several pictures, such as an animation or pages; only one is read."""
    try:
        with Image.open(path, formats=FORMATS) as picture:
            return bool(getattr(picture, "is_animated", False))
    except Exception:  # as above; whether the first is whole is known by reading it
        return False


def apply_exif_orientation(pixels: Image.Image, picture: Image.Image) -> Image.Image:
    """Turn ``pixels`` as the EXIF of ``picture``, which it was made of, wants it shown.

    Unreadable EXIF turns nothing. Pillow's ``exif_transpose`` would also write EXIF anew, and fail
    on what it could not read.
    """
    try:
        turn = UPRIGHT.get(picture.getexif().get(ORIENTATION, 1))
    except Exception:  # as above; the pixels are whole
        return pixels
    return pixels if turn is None else pixels.transpose(turn)


def read_image(path: Path) -> Image.Image:
    """Read a photo as upright RGB.

    Raises:
        ValueError: see `open_picture`.
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


def is_safe_filename(name: str) -> bool:
    """Whether a text is the name of a file and nothing else: no folder, not hidden, no control
    characters, not too long."""
    plain = name.isprintable() and not re.search(r"[/\\]|^\.|^$", name)
    return plain and len(name.encode("utf-8", "replace")) <= 255


def check_name(path: Path) -> None:
    """Refuse a name that is not UTF-8, in which tables of photos are written.

    Raises:
        ValueError: names the file, and says what to do.
    """
    written = os.path.abspath(path)
    if not written.isascii() and _NO_TEXT.search(written):
        raise ValueError(f"{written!a}: has a name that is not UTF-8; rename it")


def written_path(root: Path, written: str) -> Path:
    """The file in ``root`` that a path written in a file names; links on the way are followed.

    Raises:
        ValueError: the path is absolute, or leads up.
    """
    if Path(written).is_absolute() or ".." in Path(written).parts:
        raise ValueError(f"{written}: leads out of {root}; run `dvc repro prepare`")
    check_name(root / written)
    return root / written
