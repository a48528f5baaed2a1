"""Last block of a vision transformer for dense features: attention variants and outlier repair.

The trained last block mixes the whole image into every token. Training-free methods replace its
attention map by similarities among the tokens' queries, keys or values; some also drop the residual
connection and the MLP.

Before it, outlier tokens can be repaired. Large towers store information about the whole image in a
few background patches (Darcet et al., arXiv 2309.16588). As in Bai et al., Self-Calibrated CLIP
(arXiv 2411.15869), the 5 % of the patches with the highest outlier factor take the mean of their
neighbours. Constants and formula are those of the released code.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from timm.models.vision_transformer import Block
from torch import Tensor, nn

GAUSSIAN_STD = 5.0  # patches (NACLIP)
NEIGHBOURS = 30  # nearest tokens that the outlier factor uses
SHARE = 0.05  # of an image's patches that are repaired
Grid = tuple[int, int]


@dataclass(frozen=True)
class DenseMode:
    """How the last block mixes patches.

    Attributes:
        compared: letters of "qkv", each for an attention map: the similarities among the tokens'
            queries, keys or values. Maps are summed; without any, tokens keep their own values.
        whole_block: keep the residual connection and the MLP.
        nearby: add a Gaussian of the distance to the similarity.
    """

    compared: str
    whole_block: bool
    nearby: bool = False


DENSE_MODES = {
    # Zhou et al., Extract Free Dense Labels from CLIP (arXiv 2112.01071); block kept as in CARB
    "value": DenseMode("", whole_block=True),
    # ClearCLIP's block with value-value. CLIP Surgery (Li et al., arXiv 2304.05653) is another: it
    # changes the last six blocks and keeps the residual in its new path.
    "vv": DenseMode("v", whole_block=False),
    # Wang et al., SCLIP (arXiv 2312.01597): query-query plus key-key
    "sclip": DenseMode("qk", whole_block=True),
    # Lan et al., ClearCLIP (arXiv 2407.12442): query-query, no residual, no MLP
    "clearclip": DenseMode("q", whole_block=False),
    # Hajimiri et al., Pay Attention to Your Neighbours (arXiv 2404.08181): key-key and a Gaussian
    "naclip": DenseMode("k", whole_block=False, nearby=True),
}


@dataclass(frozen=True)
class _Parts:
    """A block of open_clip or timm under one set of names."""

    norms: tuple[nn.Module, nn.Module]  # before the attention, before the MLP
    scales: tuple[nn.Module, nn.Module]
    weight: Tensor  # of queries, keys and values, stacked
    bias: Tensor | None
    head_norms: dict[str, nn.Module]  # of queries and keys
    project: Callable[[Tensor], Tensor]
    heads: int


def _parts(block: Any) -> _Parts:
    attention = block.attn
    if isinstance(block, Block):
        return _Parts(
            norms=(block.norm1, block.norm2),
            scales=(block.ls1, block.ls2),
            weight=attention.qkv.weight,
            bias=attention.qkv.bias,
            head_norms={"q": attention.q_norm, "k": attention.k_norm},
            project=lambda values: attention.proj(attention.norm(values)),
            heads=attention.num_heads,
        )
    return _Parts(
        norms=(block.ln_1, block.ln_2),
        scales=(block.ls_1, block.ls_2),
        weight=attention.in_proj_weight,
        bias=attention.in_proj_bias,
        head_norms={k: getattr(attention, f"ln_{k}", nn.Identity()) for k in "qk"},
        project=attention.out_proj,
        heads=attention.num_heads,
    )


def dense_block(block: Any, tokens: Tensor, grid: Grid, mode: DenseMode) -> Tensor:
    """Run the last block with another attention map.

    ``y = W_o (A v) + b_o`` with ``v = W_v LN1(x) + b_v`` and the map A of the mode; then
    ``x + y + MLP(LN2(x + y))`` where the whole block is kept, else ``y`` alone. Layer scales, if
    any, are applied.

    Args:
        block: a block of open_clip or timm.
        tokens: ``[B, prefix + h * w, width]``, class tokens first.
        grid: ``(h, w)`` of the patches.
        mode: an entry of ``DENSE_MODES``.

    Returns:
        ``[B, h * w, width]``, the patches only.
    """
    parts, count = _parts(block), grid[0] * grid[1]
    if not mode.compared:  # the class token is not needed
        tokens = tokens[:, -count:]
    normed = parts.norms[0](tokens)
    values = _projected(parts, normed, "v")
    if mode.compared:
        prefix = tokens.shape[1] - count
        values = _mixed(parts, normed, values, mode, grid, prefix)[:, prefix:]
    mixed: Tensor = parts.scales[0](parts.project(values))
    if not mode.whole_block:
        return mixed
    kept = tokens[:, -count:] + mixed
    whole: Tensor = kept + parts.scales[1](block.mlp(parts.norms[1](kept)))
    return whole


def _projected(parts: _Parts, normed: Tensor, letter: str) -> Tensor:
    """Queries, keys or values of all heads, ``[B, N, width]``."""
    width, place = len(parts.weight) // 3, "qkv".index(letter)
    rows = slice(place * width, (place + 1) * width)
    return F.linear(normed, parts.weight[rows], None if parts.bias is None else parts.bias[rows])


def _mixed(
    parts: _Parts, normed: Tensor, values: Tensor, mode: DenseMode, grid: Grid, prefix: int
) -> Tensor:
    """Values through the sum of the mode's attention maps, ``[B, N, width]``."""
    bias = maps = normed.new_zeros(())
    if mode.nearby:  # a class token has no position
        bias = F.pad(gaussian_similarity(grid).to(normed), (prefix, 0, prefix, 0))
    for letter in mode.compared:
        own = _split(_projected(parts, normed, letter), parts.heads)
        own = parts.head_norms.get(letter, nn.Identity())(own)
        similarity = own @ own.transpose(-2, -1) * own.shape[-1] ** -0.5  # [B, heads, N, N]
        maps = maps + (similarity + bias).softmax(dim=-1)
    return (maps @ _split(values, parts.heads)).transpose(1, 2).flatten(2)


def _split(tokens: Tensor, heads: int) -> Tensor:
    """``[B, N, width] -> [B, heads, N, width / heads]``."""
    return tokens.reshape(*tokens.shape[:2], heads, -1).transpose(1, 2)


def gaussian_similarity(grid: Grid) -> Tensor:
    """``exp(-d^2 / (2 std^2))`` for the distance d of each pair of patches, ``[h * w, h * w]``."""
    places = torch.cartesian_prod(torch.arange(grid[0]), torch.arange(grid[1])).float()
    return torch.exp(-torch.cdist(places, places).square() / (2 * GAUSSIAN_STD**2))


def outlier_factor(tokens: Tensor, neighbours: int) -> Tensor:
    """Local outlier factor of each token of an image, ``[B, N, width] -> [B, N]``.

    The factor of Breunig et al. (SIGMOD 2000) as Self-Calibrated CLIP computes it: the density at a
    token is the inverse of the squared distance to its n-th nearest token; the factor is the mean
    density at its n nearest tokens over its own.
    """
    tokens = tokens.float()
    distance, nearest = torch.cdist(tokens, tokens).square().topk(neighbours + 1, largest=False)
    density = 1 / distance[..., -1].clamp_min(1e-10)  # [B, N]; the nearest is the token itself
    around = density[..., None].expand_as(nearest).gather(1, nearest)[..., 1:].mean(dim=-1)
    return around / density


def is_outlier(tokens: Tensor) -> Tensor:
    """Patches with a factor above the 95th percentile, ``[B, N, width] -> [B, N]`` bool."""
    factor = outlier_factor(tokens, NEIGHBOURS)
    return factor > factor.quantile(1 - SHARE, dim=-1, keepdim=True)


def repair_outliers(tokens: Tensor, grid: Grid) -> Tensor:
    """Replace each outlier patch by the mean of its up to eight neighbours that are not outliers.

    Args:
        tokens: ``[B, prefix + h * w, width]``; class tokens come first and do not change.
        grid: ``(h, w)`` of the patches; with 30 patches or fewer nothing changes.

    Returns:
        the same shape. A patch whose neighbours are all outliers keeps its token.
    """
    count = grid[0] * grid[1]
    if count <= NEIGHBOURS:
        return tokens
    prefix, patches = tokens[:, :-count], tokens[:, -count:]
    sound = (~is_outlier(patches)).to(patches)[..., None]
    around = _sum_of_nine(patches * sound, grid) / _sum_of_nine(sound, grid).clamp_min(1)
    isolated = _sum_of_nine(sound, grid) == 0
    repaired = torch.where((sound > 0) | isolated, patches, around)
    return torch.cat([prefix, repaired], dim=1)


def _sum_of_nine(patches: Tensor, grid: Grid) -> Tensor:
    """Each patch's 3x3 neighbourhood summed, ``[B, h * w, K]``; 0 beyond the edge."""
    planes = patches.transpose(1, 2).reshape(len(patches), -1, *grid)
    sums = 9 * F.avg_pool2d(planes, 3, stride=1, padding=1)
    return sums.flatten(2).transpose(1, 2)
