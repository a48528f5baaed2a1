"""Outlying patches: their factor, and what takes their place."""

import math

import numpy as np
import pytest
import torch
from torch import Tensor

from pipeline.clip.dense import load_clip
from pipeline.clip.outliers import NEIGHBOURS, outlier_factor, repair_outliers
from pipeline.config.params import load_params
from pipeline.store.masks import clip_settings
from tests.helpers import ROOT, clip_folder

GRID = (6, 7)


def patches(seed: int = 0) -> Tensor:
    """A class token and patches of noise, ``[2, 1 + 42, 8]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 1 + GRID[0] * GRID[1], 8, generator=generator)


def slow_factor(tokens: np.ndarray, neighbours: int) -> np.ndarray:
    """SC-CLIP's ``lof_pytorch``, token by token, for one image ``[N, width]``."""
    count = len(tokens)
    nearest, density = [], []
    for place in range(count):
        squared = [float(((tokens[place] - other) ** 2).sum()) for other in tokens]
        order = sorted(range(count), key=squared.__getitem__)[1 : neighbours + 1]
        reach = [max(squared[other], squared[order[-1]]) for other in order]
        nearest.append(order)
        density.append(1 / np.mean(reach))
    return np.array([np.mean([density[o] / density[p] for o in nearest[p]]) for p in range(count)])


def slow_outliers(tokens: np.ndarray) -> list[int]:
    """The patches above the 95th percentile of the factor."""
    factor = slow_factor(tokens, 30)
    return (factor > np.quantile(factor, 0.95)).nonzero()[0].tolist()


def slow_repair(tokens: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """SC-CLIP's ``mean_interpolation``, patch by patch."""
    bad, mended = slow_outliers(tokens), tokens.copy()
    for patch in bad:
        row, column = divmod(patch, grid[1])
        around = [
            tokens[y * grid[1] + x]
            for y in range(max(0, row - 1), min(grid[0], row + 2))
            for x in range(max(0, column - 1), min(grid[1], column + 2))
            if y * grid[1] + x not in bad
        ]
        if around:
            mended[patch] = np.mean(around, axis=0)
    return mended


def test_the_factor_is_sc_clip_s() -> None:
    tokens = patches()
    found = outlier_factor(tokens, 5)
    for one, image in zip(found, tokens.double().numpy(), strict=True):
        np.testing.assert_allclose(one.numpy(), slow_factor(image, 5), rtol=1e-4)


@pytest.mark.parametrize("grid", [(6, 7), (4, 16), (10, 10)])
def test_the_top_twentieth_of_each_image_is_mended_as_sc_clip_does(grid) -> None:
    count = grid[0] * grid[1]
    tokens = torch.randn(3, 1 + count, 8, generator=torch.Generator().manual_seed(1))
    tokens[1, 5] += 50  # clear outliers or not: always as many
    mended = repair_outliers(tokens, grid)
    assert torch.equal(mended[:, 0], tokens[:, 0])  # the class token stays
    for image, one in zip(tokens[:, 1:].double().numpy(), mended[:, 1:].numpy(), strict=True):
        np.testing.assert_allclose(one, slow_repair(image, grid), rtol=1e-4, atol=1e-5)
        assert (one != image.astype(np.float32)).any(axis=1).sum() == math.ceil(0.05 * count)


def test_at_a_corner_only_patches_of_the_photo_count() -> None:
    tokens = patches()
    tokens[0, 1] += 50
    mended = repair_outliers(tokens, GRID)[0, 1]
    bad = slow_outliers(tokens[0, 1:].double().numpy())
    around = [place for place in (1, GRID[1], GRID[1] + 1) if place not in bad]
    assert 0 in bad
    torch.testing.assert_close(mended, tokens[0, 1:][around].mean(dim=0))


def test_an_outlier_among_outliers_stays() -> None:
    tokens = torch.randn(1, 100, 4, generator=torch.Generator().manual_seed(0))
    block = [0, 1, 10, 11]  # a corner and all around it, four of the five that are mended
    tokens[0, block] += 100 * torch.arange(1, 5)[:, None]
    mended = repair_outliers(tokens, (10, 10))
    assert torch.equal(mended[0, 0], tokens[0, 0])
    assert not torch.equal(mended[0, 11], tokens[0, 11])


def test_a_grid_too_small_to_judge_stays() -> None:
    tokens = patches()[:, : 1 + NEIGHBOURS]
    tokens[0, 3] += 50
    assert torch.equal(repair_outliers(tokens, (5, 6)), tokens)


def test_a_store_with_patches_found_the_old_way_is_made_again_and_others_are_not() -> None:
    clip = load_params(ROOT / "params.yaml").clip
    assert clip_settings(clip, [])["repair_outliers"] is False  # as it was written before
    repaired = clip.model_copy(update={"repair_outliers": True})
    assert clip_settings(repaired, [])["repair_outliers"] not in (True, False)


def test_the_switch_mends_before_the_last_block(tmp_path):
    config = clip_folder.model_config(clip_folder.VIT)
    name = clip_folder.write_clip(tmp_path, config, clip_folder.random_weights(config))
    clip, plain = load_clip(name, None, repair=True), load_clip(name, None)
    image = torch.randn(1, 3, 96, 112, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        encoded = plain.tower.encode(image)
        wanted = plain.tower.dense(repair_outliers(encoded, (6, 7)), (6, 7))
    assert not torch.equal(repair_outliers(encoded, (6, 7)), encoded)
    features = clip.patch_features(image)
    torch.testing.assert_close(features, torch.nn.functional.normalize(wanted, dim=1))
