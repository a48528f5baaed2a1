"""Outlying patches: their factor, and what takes their place."""

import clip_folder
import numpy as np
import torch
from torch import Tensor

from pipeline.clip_dense import load_clip
from pipeline.outliers import NEIGHBOURS, THRESHOLD, outlier_factor, repair_outliers

GRID = (6, 7)


def patches(seed: int = 0) -> Tensor:
    """A class token and patches of noise, ``[2, 1 + 42, 8]``."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, 1 + GRID[0] * GRID[1], 8, generator=generator)


def slow_factor(tokens: np.ndarray, neighbours: int) -> np.ndarray:
    """Breunig et al.'s definitions, word by word, for one image ``[N, width]``."""
    count = len(tokens)
    distance = np.sqrt(((tokens[:, None] - tokens[None]) ** 2).sum(-1))
    nearest = [
        sorted((o for o in range(count) if o != p), key=lambda o, p=p: distance[p, o])[:neighbours]
        for p in range(count)
    ]
    k_distance = [distance[p, nearest[p][-1]] for p in range(count)]
    density = [
        1 / np.mean([max(k_distance[o], distance[p, o]) for o in nearest[p]]) for p in range(count)
    ]
    return np.array([np.mean([density[o] for o in nearest[p]]) / density[p] for p in range(count)])


def test_the_factor_is_breunig_s() -> None:
    tokens = patches()
    found = outlier_factor(tokens, 5)
    for one, image in zip(found, tokens.double().numpy(), strict=True):
        np.testing.assert_allclose(one.numpy(), slow_factor(image, 5), rtol=1e-4)


def test_an_outlier_takes_the_mean_of_the_sound_patches_around_it() -> None:
    tokens = patches()
    place = 1 + 2 * GRID[1] + 3  # row 2, column 3
    tokens[0, place] += 50
    tokens[0, place + 1] -= 50  # its right neighbour outlies as well
    assert (outlier_factor(tokens[:1, 1:], NEIGHBOURS)[0] > THRESHOLD).nonzero()[:, 0].tolist() == [
        place - 1,
        place,
    ]
    mended = repair_outliers(tokens, GRID)
    around = [place + down * GRID[1] + right for down in (-1, 0, 1) for right in (-1, 0, 1)]
    sound = [other for other in around if other not in (place, place + 1)]
    torch.testing.assert_close(mended[0, place], tokens[0, sound].mean(dim=0))
    same = [other for other in range(tokens.shape[1]) if other not in (place, place + 1)]
    assert torch.equal(mended[0, same], tokens[0, same])
    assert torch.equal(mended[1], tokens[1])


def test_at_a_corner_only_patches_of_the_photo_count() -> None:
    tokens = patches()
    tokens[0, 1] += 50
    wanted = tokens[0, [2, 1 + GRID[1], 2 + GRID[1]]].mean(dim=0)
    torch.testing.assert_close(repair_outliers(tokens, GRID)[0, 1], wanted)


def test_an_outlier_among_outliers_stays() -> None:
    tokens = torch.randn(1, 100, 4, generator=torch.Generator().manual_seed(0))
    block = [row * 10 + column for row in (0, 1, 2) for column in (0, 1, 2)]
    tokens[0, block] += 100 * torch.arange(1, 10)[:, None]
    mended = repair_outliers(tokens, (10, 10))
    assert torch.equal(mended[0, 0], tokens[0, 0])  # all around the corner outlie
    assert not torch.equal(mended[0, 22], tokens[0, 22])


def test_a_grid_too_small_to_judge_stays() -> None:
    tokens = patches()[:, : 1 + NEIGHBOURS]
    tokens[0, 3] += 50
    assert torch.equal(repair_outliers(tokens, (4, 5)), tokens)


def test_the_switch_mends_before_the_last_block(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.outliers.THRESHOLD", 1.01)  # random weights make no outliers
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
