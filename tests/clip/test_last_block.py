"""The last block in every dense mode, and outlier repair, against slow versions."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.clip.dense import DenseClip, load_clip
from pipeline.clip.last_block import (
    DENSE_MODES,
    NEIGHBOURS,
    dense_block,
    outlier_factor,
    repair_outliers,
)
from tests.helpers import clip_folder

GRID = (3, 5)
TIMM = {"timm_model_name": "test_vit", "timm_proj": "linear", "image_size": 160}
BLOCKS: dict[str, dict[str, Any]] = {
    "open_clip": {**clip_folder.VIT, "ls_init_value": 0.3},
    "query and key norm": {**clip_folder.VIT, "qk_norm": True},
    "timm": {**TIMM, "timm_pool": "avg"},
}
# What each method's paper says: attention maps that are added, residual and MLP kept, Gaussian.
PAPERS = {
    "value": ("", True, False),
    "vv": ("v", False, False),
    "sclip": ("qk", True, False),
    "clearclip": ("q", False, False),
    "naclip": ("k", False, True),
}


def slowly(block: Any, tokens: Tensor, method: str) -> Tensor:
    """Loops over heads and tokens, in double precision; ``tokens`` ``[N, width]``."""
    maps, whole, nearby = PAPERS[method]
    timm = hasattr(block, "norm1")
    attention, width = block.attn, tokens.shape[1]
    weight = attention.qkv.weight if timm else attention.in_proj_weight
    bias = attention.qkv.bias if timm else attention.in_proj_bias
    normed = (block.norm1 if timm else block.ln_1)(tokens)
    parts = {k: normed @ weight[i * width : (i + 1) * width].T for i, k in enumerate("qkv")}
    if bias is not None:
        parts = {k: v + bias[i * width : (i + 1) * width] for i, (k, v) in enumerate(parts.items())}
    count, heads = len(tokens), attention.num_heads
    size, prefix = width // heads, count - GRID[0] * GRID[1]
    mixed = torch.zeros_like(tokens)
    for head in range(heads):
        columns = slice(head * size, (head + 1) * size)
        values = parts["v"][:, columns]
        if not maps:
            mixed[:, columns] = values
        for letter in maps:
            own = parts[letter][:, columns]
            for norm in (f"ln_{letter}", f"{letter}_norm"):
                own = getattr(attention, norm, nn.Identity())(own)
            for one in range(count):
                scores = own @ own[one] / math.sqrt(size)
                for other in range(prefix, count if nearby and one >= prefix else 0):
                    (r, c), (s, d) = (divmod(place - prefix, GRID[1]) for place in (one, other))
                    scores[other] += math.exp(-((r - s) ** 2 + (c - d) ** 2) / (2 * 5.0**2))
                mixed[one, columns] += scores.softmax(dim=0) @ values
    out = attention.proj(attention.norm(mixed)) if timm else attention.out_proj(mixed)
    out = (block.ls1 if timm else block.ls_1)(out)
    if whole:
        out = tokens + out
        mlp = block.mlp((block.norm2 if timm else block.ln_2)(out))
        out = out + (block.ls2 if timm else block.ls_2)(mlp)
    return out[prefix:]


@pytest.mark.parametrize("kind", BLOCKS)
@torch.no_grad()
def test_each_mode_is_its_paper_s_formula(tmp_path: Path, kind: str) -> None:
    block: Any = clip_folder.random_clip(tmp_path, BLOCKS[kind]).tower.block
    width = len((block.norm1 if hasattr(block, "norm1") else block.ln_1).weight)
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randn(2, 1 + GRID[0] * GRID[1], width, generator=generator) * 2
    fast = {method: dense_block(block, tokens, GRID, DENSE_MODES[method]) for method in PAPERS}
    block.double()
    for method, found in fast.items():
        slow = torch.stack([slowly(block, one, method) for one in tokens.double()])
        torch.testing.assert_close(found.double(), slow, rtol=0, atol=2e-5, msg=method)


@torch.no_grad()
def test_mode_and_repair_are_chosen_when_clip_is_loaded(vit: DenseClip) -> None:
    image = torch.randn(1, 3, 96, 112, generator=torch.Generator().manual_seed(3))
    encoded = vit.tower.encode(image)
    patches = repair_outliers(encoded, (6, 7))
    assert not torch.equal(patches, encoded)
    clip = load_clip(vit.name, None, dense="naclip", repair=True)
    wanted = dense_block(vit.tower.block, patches, (6, 7), DENSE_MODES["naclip"])
    wanted = vit.model.visual.ln_post(wanted) @ vit.model.visual.proj
    features = clip.patch_features(image).flatten(2).transpose(1, 2)
    torch.testing.assert_close(features, F.normalize(wanted, dim=-1))


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ({"dense": "naclip"}, r"clip\.dense must be 'value' .* got 'naclip'"),
        ({"repair": True}, r"clip\.repair_outliers must be false .* got 'true'"),
    ],
)
def test_a_tower_without_a_last_block_is_refused(
    resnet: DenseClip, change: dict[str, Any], asked: str
) -> None:
    with pytest.raises(ValueError, match=r"^params\.yaml: " + asked):
        load_clip(resnet.name, None, **change)


# outliers


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


def slow_repair(tokens: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """SC-CLIP's ``mean_interpolation``, patch by patch."""
    factor, repaired = slow_factor(tokens, 30), tokens.copy()
    bad = (factor > np.quantile(factor, 0.95)).nonzero()[0].tolist()
    for patch in bad:
        row, column = divmod(patch, grid[1])
        around = [
            tokens[y * grid[1] + x]
            for y in range(max(0, row - 1), min(grid[0], row + 2))
            for x in range(max(0, column - 1), min(grid[1], column + 2))
            if y * grid[1] + x not in bad
        ]
        if around:
            repaired[patch] = np.mean(around, axis=0)
    return repaired


@pytest.mark.parametrize("grid", [(6, 7), (4, 16)])
def test_the_top_twentieth_of_each_image_is_repaired_as_sc_clip_does(grid) -> None:
    count = grid[0] * grid[1]
    tokens = torch.randn(2, 1 + count, 8, generator=torch.Generator().manual_seed(1))
    tokens[1, 5] += 50  # the same number is repaired, clear outliers or not
    factors = outlier_factor(tokens[:, 1:], 5)
    repaired = repair_outliers(tokens, grid)
    assert torch.equal(repaired[:, 0], tokens[:, 0])  # the class token stays
    for number, image in enumerate(tokens[:, 1:].double().numpy()):
        np.testing.assert_allclose(factors[number].numpy(), slow_factor(image, 5), rtol=1e-4)
        one = repaired[number, 1:].numpy()
        np.testing.assert_allclose(one, slow_repair(image, grid), rtol=1e-4, atol=1e-5)
        assert (one != image.astype(np.float32)).any(axis=1).sum() == math.ceil(0.05 * count)


def test_what_cannot_be_repaired_stays() -> None:
    tokens = torch.randn(1, 100, 4, generator=torch.Generator().manual_seed(0))
    block = [0, 1, 10, 11]  # a corner and all around it, four of the five outliers
    tokens[0, block] += 100 * torch.arange(1, 5)[:, None]
    repaired = repair_outliers(tokens, (10, 10))
    assert torch.equal(repaired[0, 0], tokens[0, 0])
    assert not torch.equal(repaired[0, 11], tokens[0, 11])
    few = tokens[:, : 1 + NEIGHBOURS]  # too few patches for the factor
    assert torch.equal(repair_outliers(few, (5, 6)), few)
