"""A window cut from the cache equals CLIP's logits of that place of the photo."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.clip.dense import DenseClip
from pipeline.clip.windows import cover_features, magnified
from pipeline.config.clip import LevelParams
from pipeline.store.reader import PseudoMaskStore
from pipeline.views import Box, View, cover, grid_positions, level_size, sample_grid

Size = tuple[int, int]
PATCH = 16
# Windows that tile these photos: each cell is of one window, not a mean of several.
LEVELS = {
    "global": LevelParams(zoom=1.0, window=(16, 16), overlap=0),
    "local": LevelParams(zoom=2.0, window=(32, 16), overlap=0),
}
SIZES: dict[str, Size] = {"whole": (32, 48), "odd": (50, 41), "flat": (17, 61)}
ROUNDED = 2**-11  # of cosines up to 1 in float16, and of positions


def photo_of(size: Size) -> Image.Image:
    noise = np.random.default_rng(size[1]).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize((size[1], size[0]), Image.Resampling.BICUBIC)


def clip_on(window: torch.Tensor, clip: DenseClip, text: torch.Tensor) -> torch.Tensor:
    """CLIP's logits of a single window ``[h, w, 3]`` uint8."""
    pixels = (window.numpy() / 255 - clip.mean) / clip.std
    return clip.patch_logits(torch.from_numpy(pixels).float().permute(2, 0, 1)[None], text)[0]


@pytest.mark.parametrize("level", LEVELS)
def test_a_window_cut_from_the_cache_has_clip_s_logits_of_that_place(
    vit: DenseClip, store_of: Callable[..., PseudoMaskStore], level: str
) -> None:
    how, text = LEVELS[level], vit.embed_text([["car"], ["sky"], ["a tree"]], ["a {}."])
    pixels = {
        name: magnified(photo_of(size), how, patch_size=PATCH) for name, size in SIZES.items()
    }
    logits = {
        name: cover_features(shown, how, vit, lambda w: vit.patch_logits(w, text)).numpy()
        for name, shown in pixels.items()
    }
    store = store_of({level: logits}, SIZES)
    for name, size in SIZES.items():
        whole = level_size(size, zoom=how.zoom, patch_size=PATCH)
        for box in cover(whole, window=how.window, overlap=how.overlap, patch_size=PATCH):
            top, left, height, width = (int(edge) for edge in box)
            alone = clip_on(pixels[name][top : top + height, left : left + width], vit, text)
            assert_cache_shows(store, name, level, box=box, whole=whole, wanted=alone)


def assert_cache_shows(
    store: PseudoMaskStore, name: str, level: str, *, box: Box, whole: Size, wanted: torch.Tensor
) -> None:
    """Read a window at its cells, and at 3 x 5 pixels per cell, mirrored and not.

    At the cells nothing is interpolated. Any other pixel lies at most half a cell from the centre
    of its cell along each axis, so it differs by at most half a step between neighbours per axis.
    """
    size, grid = SIZES[name], torch.from_numpy(store.read_padded(name, level)).float()
    scale = (size[0] / whole[0], size[1] / whole[1])
    place = Box(box[0] * scale[0], box[1] * scale[1], box[2] * scale[0], box[3] * scale[1])
    cells = store.read(name, level)
    slack = sum(0.5 * np.abs(np.diff(cells, axis=axis)).max(initial=0) for axis in (1, 2))
    assert slack > 10 * ROUNDED  # logits differ from place to place
    for repeats, error in (((1, 1), ROUNDED), ((3, 5), slack + ROUNDED)):
        large = wanted.repeat_interleave(repeats[0], 1).repeat_interleave(repeats[1], 2)
        for flipped in (False, True):
            view = View(place, (large.shape[1], large.shape[2]), flipped)
            rows, columns = grid_positions(view, size, store.grid_size(name, level))
            read = sample_grid(grid[None], rows[None], columns[None])[0]
            assert (read - (large.flip(2) if flipped else large)).abs().max() <= error
