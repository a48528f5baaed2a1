"""Geometry of views: crops, local windows, flips and sliding-window covers.

One convention everywhere: the origin is the top left corner of the image, axis order is (row,
column), a pixel is a unit square whose centre lies at +0.5, boxes exclude their ends and may have
fractional edges. Resampling uses align_corners=False. An image, its cached logits at any resolution
and its crops thus share one continuous plane, and a `Box` cuts the same place out of each.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor


class Box(NamedTuple):
    """A rectangle in pixels of its source: ``[top, top + height) x [left, left + width)``."""

    top: float
    left: float
    height: float
    width: float

    def slices(self) -> tuple[slice, slice]:
        """Rows and columns of a box with whole edges: ``array[..., *box.slices()]`` cuts it out."""
        top, left, height, width = (int(edge) for edge in self)
        return slice(top, top + height), slice(left, left + width)


@dataclass(frozen=True)
class View:
    """A crop of an image: where it lies, its size in its own pixels, and whether it is mirrored.

    Attributes:
        box: where it lies, in pixels of the image.
        size: ``(height, width)`` of the crop in its own pixels.
        flipped: True if the crop is mirrored left to right after cutting.
    """

    box: Box
    size: tuple[int, int]
    flipped: bool = False


def _uniform(low: float, high: float, generator: torch.Generator) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator, dtype=torch.float64))


def draw_global_view(
    image_size: tuple[int, int],
    *,
    base_size: tuple[int, int],
    scale: tuple[float, float],
    crop: tuple[int, int],
    flip: float,
    generator: torch.Generator,
) -> View:
    """Draw the crop that the segmenter is trained on: random scale, position and mirroring.

    The image is fitted into ``base_size`` keeping its aspect ratio, magnified by U(scale), and a
    window of ``crop`` pixels is cut from it. An image that is still too small is magnified
    further until the crop fits; nothing is padded.

    Args:
        image_size: ``(height, width)`` of the image.
        base_size: ``(height, width)`` that the image is fitted into at scale 1.
        scale: smallest and largest magnification.
        crop: ``(height, width)`` of the view in its own pixels.
        flip: probability of mirroring.
        generator: source of randomness.
    """
    fit = min(base / side for base, side in zip(base_size, image_size, strict=True))
    zoom = fit * _uniform(*scale, generator)
    zoom = max(zoom, *(out / side for out, side in zip(crop, image_size, strict=True)))
    height, width = crop[0] / zoom, crop[1] / zoom
    top = _uniform(0, image_size[0] - height, generator)
    left = _uniform(0, image_size[1] - width, generator)
    flipped = _uniform(0, 1, generator) < flip
    return View(Box(top, left, height, width), crop, flipped)


def draw_local_box(
    crop: tuple[int, int], window: tuple[int, int], *, generator: torch.Generator
) -> Box:
    """Draw the position of the local view, in whole pixels of the crop; uniform.

    The paper draws one position per batch; we draw one per image.
    """
    top, left = (
        int(torch.randint(0, outer - inner + 1, (), generator=generator))
        for outer, inner in zip(crop, window, strict=True)
    )
    return Box(top, left, *window)


def sub_view(view: View, window: Box) -> View:
    """The part of a view that ``window`` (in pixels of ``view``) covers, at the same scale."""
    step_y, step_x = view.box.height / view.size[0], view.box.width / view.size[1]
    left = view.size[1] - window.left - window.width if view.flipped else window.left
    box = Box(
        view.box.top + window.top * step_y,
        view.box.left + left * step_x,
        window.height * step_y,
        window.width * step_x,
    )
    return View(box, (int(window.height), int(window.width)), view.flipped)


def cut_image(image: Image.Image, view: View) -> Image.Image:
    """Cut a view out of an image: bilinear, with antialiasing where it shrinks."""
    box = view.box
    height, width = image.height, image.width
    edges = (
        max(box.left, 0.0),
        max(box.top, 0.0),
        min(box.left + box.width, width),
        min(box.top + box.height, height),
    )
    part = image.resize((view.size[1], view.size[0]), Image.Resampling.BILINEAR, box=edges)
    return part.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if view.flipped else part


def grid_positions(
    view: View, image_size: tuple[int, int], grid_size: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Where the pixel centres of a view lie on a grid that spans the image.

    Args:
        view: a view of the image.
        image_size: ``(height, width)`` of the image in pixels.
        grid_size: ``(rows, columns)`` of the grid, such as cached patch logits.

    Returns:
        ``rows [h], columns [w]`` float32 in cells, 0 at the centre of the first cell, clamped to
        the first and the last centre.
    """
    positions = []
    for start, length, count, pixels, cells in zip(
        view.box[:2], view.box[2:], view.size, image_size, grid_size, strict=True
    ):
        centres = start + (torch.arange(count, dtype=torch.float64) + 0.5) * (length / count)
        positions.append((centres * cells / pixels - 0.5).clamp(0, cells - 1).float())
    rows, columns = positions
    return rows, columns.flip(0) if view.flipped else columns


def sample_grid(grids: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Read grids bilinearly at the positions that `grid_positions` gives.

    Args:
        grids: ``[B, C, gh, gw]`` float; may be padded beyond the cells that the positions use.
        rows: ``[B, h]`` float, in cells.
        columns: ``[B, w]`` float, in cells.

    Returns:
        ``[B, C, h, w]`` of the dtype of ``grids``.
    """
    across = grids @ _bilinear(columns, grids.shape[3]).transpose(1, 2)[:, None]  # [B, C, gh, w]
    return _bilinear(rows, grids.shape[2])[:, None] @ across  # [B, C, h, w]


def _bilinear(positions: Tensor, cells: int) -> Tensor:
    """Weights of the cells at each position, ``[B, n, cells]``: 1 at a cell, 0 at its neighbours.

    Crops are axis-aligned, so bilinear reading is two matrix products, 10 times as fast as
    ``grid_sample`` on a CPU.
    """
    centres = torch.arange(cells, device=positions.device)
    return (1 - (positions[:, :, None] - centres).abs()).clamp_min(0)


def fitted_size(
    image_size: tuple[int, int], *, base_size: tuple[int, int], stride: int
) -> tuple[int, int]:
    """Size of an image fitted into ``base_size``, keeping its aspect ratio, in whole strides.

    Args:
        image_size: ``(height, width)`` of the image.
        base_size: ``(height, width)`` that images are fitted into.
        stride: the sides become multiples of it, pixels.
    """
    fit = min(base / side for base, side in zip(base_size, image_size, strict=True))
    height, width = (max(1, round(side * fit / stride)) * stride for side in image_size)
    return height, width


def level_size(image_size: tuple[int, int], *, zoom: float, patch_size: int) -> tuple[int, int]:
    """Size of the magnified image: the nearest whole number of patches, at least one."""
    height, width = (max(1, round(side * zoom / patch_size)) * patch_size for side in image_size)
    return height, width


def _starts(length: int, window: int, overlap: float) -> list[int]:
    """Starts of equal windows, evenly spread, that cover ``length`` with at least ``overlap``."""
    if window >= length:
        return [0]
    stride = max(1, math.floor(window * (1 - overlap)))
    count = math.ceil((length - window) / stride) + 1
    return [round(k * (length - window) / (count - 1)) for k in range(count)]


def cover(
    size: tuple[int, int], *, window: tuple[int, int], overlap: float, patch_size: int
) -> list[Box]:
    """Overlapping windows that cover an image, aligned to the patch grid.

    Args:
        size: ``(height, width)`` of the (magnified) image, multiples of ``patch_size``.
        window: ``(height, width)`` of a window; limited to the image where it is larger.
        overlap: smallest share of a window that its neighbour covers too.
        patch_size: side of a patch in pixels.

    Raises:
        ValueError: the window is not a multiple of the patch.
    """
    if any(side % patch_size for side in window):
        raise ValueError(
            f"params.yaml: clip.levels: window must be a multiple of CLIP's patch of {patch_size} "
            f"pixels, got {list(window)}"
        )
    cells = [side // patch_size for side in size]
    inner = [min(side // patch_size, cell) for side, cell in zip(window, cells, strict=True)]
    rows, columns = (_starts(c, i, overlap) for c, i in zip(cells, inner, strict=True))
    height, width = (side * patch_size for side in inner)
    return [Box(r * patch_size, c * patch_size, height, width) for r in rows for c in columns]


def blend(patches: Tensor, boxes: Sequence[Box], *, size: tuple[int, int]) -> Tensor:
    """Paste the grids of a cover back into one, averaging where windows overlap.

    Args:
        patches: ``[n, C, h, w]`` float, one grid per window.
        boxes: the windows, in cells of the whole grid.
        size: ``(rows, columns)`` of the whole grid.

    Returns:
        ``[C, rows, columns]`` of the dtype of ``patches``.
    """
    total = patches.new_zeros(patches.shape[1], *size)
    weight = patches.new_zeros(size)
    for patch, box in zip(patches, boxes, strict=True):
        total[:, *box.slices()] += patch
        weight[*box.slices()] += 1
    return total / weight
