"""Drawing: masks in colour, overlays, marked regions, heat maps, and the colour-blind palette."""

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.config.eval import PaletteName
from pipeline.system.files import atomic_path

RgbArray = npt.NDArray[np.uint8]
AnyMask = npt.NDArray[Any]

IGNORE_COLOUR = (255, 255, 255)
MARK_STRIPES, MARK_OUTLINE = ((255, 190, 30), (165, 95, 0)), (40, 20, 0)

# 255 colours, the first n of which are distinguishable from each other and from white with normal,
# protanopic, deuteranopic and tritanopic vision. Three hex digits per colour, each times 17. From
# pipeline/palettes.py of commit 8726f14, `_far_apart(19)` and then its greedy step.
_APART = (
    "406c707af60e900eb997977eace70ab9a0f0446c21602e93759375bfaedd2342a7f0c518c0b7446868b665ff6d"
    "648e046334db9e760cbc5567cdff7f869b85ca9540df7d80b37b6ca8aa3d7600844cbfedf688c7615abd906fd4"
    "cdadaf83a598b7f79d9d01475b4d46049a1476b417def7d7dcd63f0c333397000975ba9c00b259805f48526b54"
    "97d86f58a91852050573c90b96d807ce97eb3428a6ebfafc94ab33c38845fabb89f9a95a362ef0c8b776a7bc57"
    "91d40d00adc8768643dacf44bb5a83b3c208b9ed4a7048968539be75660478efcec996ad747cfeac2bccee8a00"
    "68cde60889ba3fbaab456955d5bffbc65835fc9628785bd5d9884e9cd516812e7c6ee47976e369badcca85769e"
    "bea9ec51fa1887f7c8c7bcee6df6350e67ff877e0da8e61b537dbdb79c35709efd752e7682ebe4454f4a67dd9c"
    "adc483f86ea87017246f7e9e3b7ba1dba464d500971529c6573cf988929269caa7494d2a4d400c6b2bb950944b"
    "85cf8b87b8a9a88649ac9aed9f8577c0a88f9b79dd476"
)
# Linear RGB -> cones -> OKLab, a perceptually uniform space: Ottosson 2020,
# bottosson.github.io/posts/oklab.
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def palette_of(name: PaletteName, own: RgbArray) -> RgbArray:
    """Colours of the classes.

    Args:
        name: ``dataset`` (``own``), or ``colour_blind``: colours that are distinguishable with any
            colour vision, assigned so that each class keeps a colour close to its own.
        own: the data set's colours, ``[C, 3]`` uint8 RGB, at most 255.

    Returns:
        ``[C, 3]`` uint8 RGB.
    """
    if name == "dataset":
        return own
    from scipy.optimize import linear_sum_assignment  # takes half a second

    digits = np.array([int(digit, 16) for digit in _APART[: 3 * len(own)]])
    apart = (17 * digits).astype(np.uint8).reshape(-1, 3)
    moved = np.linalg.norm(_oklab(own)[:, None] - _oklab(apart)[None], axis=-1)
    _, taken = linear_sum_assignment(moved.round(6))  # rounded: ties are equal on all machines
    return np.asarray(apart[taken])


def _oklab(colours: RgbArray) -> npt.NDArray[np.float64]:
    """RGB ``[C, 3]`` uint8 to OKLab ``[C, 3]``."""
    share = colours.astype(np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    return np.asarray(np.cbrt(linear @ _CONES.T) @ _OKLAB.T)


def colour_mask(mask: AnyMask, palette: RgbArray) -> RgbArray:
    """Paint each class in its colour, and ignored pixels white.

    Args:
        mask: ``[H, W]`` integer, class index or 255.
        palette: ``[C, 3]`` uint8 RGB.

    Returns:
        ``[H, W, 3]`` uint8 RGB.
    """
    colours = np.vstack([palette, np.array([IGNORE_COLOUR], np.uint8)])
    index = mask.astype(np.int64)
    known = (index >= 0) & (index < len(palette))
    return np.asarray(colours[np.where(known, index, len(palette))])


def overlay(image: RgbArray, mask: AnyMask, palette: RgbArray, *, alpha: float = 0.6) -> RgbArray:
    """Blend the mask's colours into the image; ignored pixels are unchanged.

    Args:
        image: ``[H, W, 3]`` uint8 RGB.
        mask: ``[H, W]`` integer, class index or 255.
        palette: ``[C, 3]`` uint8 RGB.
        alpha: share of the colour, 0 (image only) to 1 (colour only).

    Returns:
        ``[H, W, 3]`` uint8 RGB.
    """
    known = ((mask >= 0) & (mask < len(palette)))[:, :, None]
    mixed = (1 - alpha) * image + alpha * colour_mask(mask, palette)
    return np.where(known, np.rint(mixed).astype(np.uint8), image)


def changes(image: RgbArray, before: AnyMask, after: AnyMask, palette: RgbArray) -> RgbArray:
    """The colours of mask ``after`` where it differs from mask ``before``, on the faded image.

    ``image`` is ``[H, W, 3]`` uint8 RGB, the masks are ``[H, W]`` integer, class index or 255.
    """
    changed = (before != after)[:, :, None]
    return np.asarray(np.where(changed, colour_mask(after, palette), faded(image)))


def faded(image: RgbArray) -> RgbArray:
    """The image in light grey, as a background."""
    grey = image.astype(np.float64).mean(axis=2, keepdims=True)
    return np.asarray(np.rint(165 + 0.35 * grey.repeat(3, axis=2)), np.uint8)


def mark_region(image: RgbArray, region: npt.NDArray[np.bool_]) -> RgbArray:
    """Mark a region by stripes and an outline that differ in lightness, not only in hue.

    Args:
        image: ``[H, W, 3]`` uint8 RGB.
        region: ``[H, W]``.

    Returns:
        ``[H, W, 3]`` uint8 RGB.
    """
    rows, columns = np.ogrid[: region.shape[0], : region.shape[1]]
    stripes = np.array(MARK_STRIPES)[(rows + columns) // 4 % 2]
    tinted = np.rint(0.3 * image + 0.7 * stripes).astype(np.uint8)
    marked = np.where(region[:, :, None], tinted, image)
    wide = np.pad(region, 1, constant_values=True)  # no outline at the border of the image
    inside = wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]
    marked[region & ~inside] = MARK_OUTLINE
    return marked


def heat(values: npt.NDArray[np.floating[Any]], top: float) -> RgbArray:
    """Map values ``[H, W]``, clipped to 0..``top``, to the colour map cividis, ``[H, W, 3]``."""
    import matplotlib as mpl

    colours = (255 * mpl.colormaps["cividis"](np.arange(256))[:, :3]).round().astype(np.uint8)
    return np.asarray(colours[np.rint(255 * (values / top).clip(0, 1)).astype(int)])


def save_png(path: Path, image: Image.Image | RgbArray) -> None:
    """Write an image as PNG without metadata, atomically."""
    opened = image if isinstance(image, Image.Image) else Image.fromarray(image)
    with atomic_path(path) as draft:
        opened.save(draft, format="PNG")
