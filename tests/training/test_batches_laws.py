"""Coordinates as image and as mask through the batch pipeline: both give each pixel's position.

A pixel's centre is at +0.5. Red is ``k * row`` and green ``k * column``, with k as large as fits
into 8 bits. A cell's logits are its distances up, down, left and right of the image's middle, so
two of them are its position and their arg-max is its quarter.

Bounds of the difference, in pixels of the image:

- A crop with s image pixels per pixel: 0.5 / k for rounding to 8 bits. Magnification (s <= 1)
  interpolates a line without error. Reduction samples a triangle of half-width s, cut off at the
  image's edges, which moves its centre by at most s / 9
  (`test_reduction_moves_no_position_by_more_than_a_ninth_of_a_pixel_of_the_crop`).
- A grid: exact between the outermost centres of its cells and constant beyond them, so the image's
  position is clamped to them, too; float16 rounds by 2^-11 of at most half the image's side,
  float32 positions by less than 0.001.
"""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from pipeline.config.views import AugmentParams, ViewsParams
from pipeline.store.reader import PseudoMaskStore
from pipeline.training.crops import CropDataset, SampledLogits, TrainingPhoto, collate
from tests.helpers.tiny_store import store_of_logits

Size = tuple[int, int]
NOTHING = AugmentParams(style="torchvision", brightness=0, contrast=0, saturation=0, hue=0)
SIZES: list[Size] = [(1, 1), (1, 40), (7, 2), (33, 52), (51, 18), (40, 40)]
CELL_PX = {"global": 8, "near": 4, "fine": 2}
CLASSES_OF = [(0, 1, 2, 3), (0, 1), (0, 1, 2, 3), (0, 1, 2, 3), (1, 2, 3), (2, 3)]  # each photo's


def ramp(side: int, cells: int) -> np.ndarray:
    """Centres of cells in pixels of the image, relative to its middle."""
    return (np.arange(cells) + 0.5) * side / cells - side / 2


def steps_of(size: Size) -> list[int]:
    """Grey levels per pixel of the image, vertically and horizontally."""
    return [255 // max(1, side - 1) for side in size]


def directions(size: Size, cells: Size) -> np.ndarray:
    """Logits ``[4, h, w]``: distance of a cell up, down, left and right of the image's middle."""
    down, across = np.meshgrid(*map(ramp, size, cells), indexing="ij")
    return np.stack([-down, down, -across, across])


@dataclass
class Scenes:
    """Images and a store, both with coordinates as content."""

    photos: list[TrainingPhoto]
    store: PseudoMaskStore

    def crops(self, views: ViewsParams, *, seed: int, stride: int = 1) -> CropDataset:
        return CropDataset(
            self.photos,
            self.store,
            global_level=self.store.global_level,
            local_levels=self.store.local_levels,
            views=views,
            augment=NOTHING,
            seed=seed,
            grid_stride=stride,
        )


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Scenes:
    folder, photos = tmp_path_factory.mktemp("scenes"), []
    for index, size in enumerate(SIZES):
        down, across = np.indices(size)
        k_down, k_across = steps_of(size)
        pixels = np.stack([k_down * down, k_across * across, 0 * down], axis=-1).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
        labels = np.isin(np.arange(4), CLASSES_OF[index])
        photos.append(TrainingPhoto(f"{index}", folder / f"{index}.png", size, labels))
    logits = {
        level: {
            photo.key: directions(photo.size, cells_of(photo.size, cell_px)) for photo in photos
        }
        for level, cell_px in CELL_PX.items()
    }
    sizes = {photo.key: photo.size for photo in photos}
    return Scenes(photos, store_of_logits(folder / "draft", logits, sizes))


def cells_of(size: Size, cell_px: int) -> Size:
    return max(1, round(size[0] / cell_px)), max(1, round(size[1] / cell_px))


@st.composite
def views_params(draw: st.DrawFn, multiple: int = 1) -> ViewsParams:
    """Crops with sides of 1 to 30 pixels, of images magnified or reduced up to 4 times."""
    sides = st.integers(1, 30 // multiple).map(lambda side: side * multiple)
    crop = draw(sides), draw(sides)
    low = draw(st.floats(0.25, 1.5))
    return ViewsParams(
        base_size=(draw(st.integers(8, 100)), draw(st.integers(8, 100))),
        scale=(low, low + draw(st.sampled_from([0.0, 0.5, 2.0]))),
        crop=crop,
        local_window=tuple(draw(st.integers(1, s // multiple)) * multiple for s in crop),
        flip=draw(st.sampled_from([0.0, 0.5, 1.0])),
    )


def coarsest(size: Size, views: ViewsParams) -> float:
    """Image pixels per pixel of the crop, at most: at the smallest magnification."""
    fit = min(base / side for base, side in zip(views.base_size, size, strict=True))
    fill = max(out / side for out, side in zip(views.crop, size, strict=True))
    return 1 / max(fit * views.scale[0], fill)


def bound_of(side: int, step: int, coarse: float) -> float:
    """Bound of the difference between image and grid along one axis; derived at the top."""
    return 0.5 / step + (coarse / 9 if coarse > 1 else 0) + side / 2 * 2**-11 + 1e-3


def assert_same_places(
    image: Tensor, cut: SampledLogits, row: int, *, size: Size, coarse: float, labels: Tensor
) -> None:
    """Compare the positions in a crop ``[3, h, w]`` and in its row of the sampled logits."""
    told, grid, places, bounds = cut.sample()[row], cut.grids[row].float(), [], []
    for axis, (side, step) in enumerate(zip(size, steps_of(size), strict=True)):
        line = grid[2 * axis + 1]  # the padding around it is 0, the image's middle
        seen = (image[axis].float() / step + 0.5 - side / 2).clamp(line.min(), line.max())
        bound = bound_of(side, step, coarse)
        assert (seen - told[2 * axis + 1]).abs().max() <= bound
        places += [-seen, seen]
        bounds.append(bound)
    present = torch.stack(places).masked_fill(~labels[:, None, None], -torch.inf)
    first, second = present.topk(2, dim=0).values
    clear = first - second > 2 * max(bounds)  # elsewhere the bounds leave two quarters possible
    mask = cut.hard_masks(labels.expand(len(cut.grids), -1))[row]
    assert torch.equal(mask[clear], present.argmax(dim=0)[clear])


@settings(max_examples=30)
@given(views_params(), st.integers(0, 999))
def test_every_pixel_of_crop_and_targets_is_of_the_same_position(scenes, views, seed):
    crops = scenes.crops(views, seed=seed)
    batch = collate([crops[position] for position in range(len(SIZES))])
    assert sorted(batch.keys) == [photo.key for photo in scenes.photos]
    assert batch.images.shape[2:] == views.crop
    for row, key in enumerate(batch.keys):
        size = SIZES[int(key)]
        assert set(batch.image_labels[row].nonzero().flatten().tolist()) == {*CLASSES_OF[int(key)]}
        case = {"size": size, "coarse": coarsest(size, views), "labels": batch.image_labels[row]}
        assert_same_places(batch.images[row], batch.global_logits, row, **case)
        top, left, height, width = batch.local_boxes[row]
        window = batch.images[row, :, top : top + height, left : left + width]
        assert window.shape[1:] == views.local_window
        assert_same_places(window, batch.local_logits, row, **case)


@settings(max_examples=30)
@given(st.data(), st.integers(2, 5), st.integers(0, 999))
def test_a_target_at_a_stride_is_of_the_middle_of_its_pixels(scenes, data, stride, seed):
    """The mean position of a block is its middle, except where the outermost centre clamps it.

    There the error is at most an eighth of the block, with half of the block beyond the centre.
    """
    views = data.draw(views_params(multiple=stride))
    crops = scenes.crops(views, seed=seed, stride=stride)
    batch = collate([crops[position] for position in range(len(SIZES))])
    told = batch.global_logits.sample()
    assert told.shape[2:] == (views.crop[0] // stride, views.crop[1] // stride)
    for row, key in enumerate(batch.keys):
        size = SIZES[int(key)]
        coarse, grid = coarsest(size, views), batch.global_logits.grids[row].float()
        for axis, (side, step) in enumerate(zip(size, steps_of(size), strict=True)):
            line = grid[2 * axis + 1]
            seen = batch.images[row, axis].float() / step + 0.5 - side / 2
            blocks = torch.nn.functional.avg_pool2d(
                seen.clamp(line.min(), line.max())[None], stride
            )
            off = (blocks[0] - told[row, 2 * axis + 1]).abs().max()
            assert off <= bound_of(side, step, coarse) + stride * coarse / 8


def test_reduction_moves_no_position_by_more_than_a_ninth_of_a_pixel_of_the_crop():
    """The centre of mass of the triangle, by enumeration.

    Middles of the crop's pixels are at least half of such a pixel away from the photo's edges.
    """
    worst = 0.0
    for side in (2, 3, 4, 7, 40):
        pixels = np.arange(side) + 0.5
        for half in np.linspace(1, min(side, 10), 91):
            middles = np.linspace(half / 2, side - half / 2, 401)[:, None]
            weights = np.clip(1 - np.abs(pixels - middles) / half, 0, None)
            moved = (weights * pixels).sum(axis=1) / weights.sum(axis=1) - middles[:, 0]
            worst = max(worst, np.abs(moved).max() / half)
    assert 0.1 < worst < 1 / 9
