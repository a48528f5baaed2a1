"""The last block in every dense mode, against a slow version in double precision."""

import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.clip.dense import load_clip
from pipeline.clip.last_block import DENSE_MODES, dense_block
from pipeline.config.clip import ClipParams
from tests.helpers import clip_folder

GRID = (3, 5)
TIMM = {"timm_model_name": "test_vit", "timm_proj": "linear", "image_size": 160}
BLOCKS: dict[str, tuple[dict[str, Any], int]] = {  # vision_cfg, tokens before the patches
    "class token": (clip_folder.VIT, 1),
    "layer scale": ({**clip_folder.VIT, "ls_init_value": 0.3}, 1),
    "query and key norm": ({**clip_folder.VIT, "qk_norm": True}, 1),
    "timm": ({**TIMM, "timm_pool": "token"}, 1),
    "timm, average": ({**TIMM, "timm_pool": "avg"}, 1),
}
# What each method's paper says: attention maps that are added, residual and MLP kept, Gaussian.
PAPERS = {
    "value": ("", True, False),
    "vv": ("v", False, False),
    "sclip": ("qk", True, False),
    "clearclip": ("q", False, False),
    "naclip": ("k", False, True),
}


def test_the_schema_knows_the_modes() -> None:
    assert set(get_args(ClipParams.model_fields["dense"].annotation)) == set(DENSE_MODES)
    assert set(PAPERS) == set(DENSE_MODES)


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
@pytest.mark.parametrize("method", PAPERS)
@torch.no_grad()
def test_a_mode_is_its_paper_s_formula(tmp_path: Path, method: str, kind: str) -> None:
    vision, prefix = BLOCKS[kind]
    clip = clip_folder.random_clip(tmp_path, vision)
    block: Any = clip.tower.block
    count = prefix + GRID[0] * GRID[1]
    width = len((block.norm1 if hasattr(block, "norm1") else block.ln_1).weight)
    tokens = torch.randn(2, count, width, generator=torch.Generator().manual_seed(0)) * 2
    fast = dense_block(block, tokens, GRID, DENSE_MODES[method])
    block.double()
    slow = torch.stack([slowly(block, one, method) for one in tokens.double()])
    torch.testing.assert_close(fast.double(), slow, rtol=0, atol=2e-5)


@pytest.mark.parametrize("method", PAPERS)
def test_a_mode_is_chosen_when_clip_is_loaded(tmp_path: Path, method: str) -> None:
    config = clip_folder.model_config(clip_folder.VIT)
    name = clip_folder.write_clip(tmp_path, config, clip_folder.random_weights(config))
    clip, plain = load_clip(name, None, dense=method), load_clip(name, None)
    image = torch.randn(1, 3, 48, 80, generator=torch.Generator().manual_seed(1))
    features = clip.patch_features(image)
    assert features.shape == (1, 24, 3, 5)
    with torch.no_grad():
        tokens = clip.tower.encode(F.interpolate(image, (48, 80)))
        wanted = clip.tower.dense(tokens, GRID)
    torch.testing.assert_close(features, F.normalize(wanted, dim=1))
    assert torch.equal(features, plain.patch_features(image)) == (method == "value")


@pytest.mark.parametrize(
    ("change", "asked"),
    [
        ({"dense": "naclip"}, r"clip\.dense must be 'value' .* got 'naclip'"),
        ({"repair": True}, r"clip\.repair_outliers must be false .* got 'true'"),
    ],
)
def test_a_tower_that_mixes_last_elsewhere_is_refused(tmp_path, change, asked):
    config = clip_folder.model_config(clip_folder.RESNET)
    name = clip_folder.write_clip(tmp_path, config, clip_folder.random_weights(config))
    with pytest.raises(ValueError, match=r"^params\.yaml: " + asked):
        load_clip(name, None, **change)
