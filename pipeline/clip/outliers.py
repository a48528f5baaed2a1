"""Mending patches whose tokens went astray in the depth of a vision transformer.

Large towers put what concerns the whole image into a few background patches (Darcet et al., arXiv
2309.16588), which then look like nothing near them. As in Bai et al., Self-Calibrated CLIP (arXiv
2411.15869), the twentieth of the patches that is farthest from its likes before the last block
takes the mean of its neighbours. Numbers and formula are those of the released code.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS = 30  # nearest tokens
SHARE = 0.05  # of an image's patches, always


def outlier_factor(tokens: Tensor, neighbours: int) -> Tensor:
    """How sparse it is around each token of an image, ``[B, N, width] -> [B, N]``.

    The local outlier factor (Breunig et al., SIGMOD 2000) as Self-Calibrated CLIP computes it:
    distances are squared, and what a token reaches is its own distance to the last of its nearest
    tokens. The mean density around those, over the density around the token itself.
    """
    tokens = tokens.float()
    distance, nearest = torch.cdist(tokens, tokens).square().topk(neighbours + 1, largest=False)
    density = 1 / distance[..., -1].clamp_min(1e-10)  # [B, N]; the nearest is the token itself
    around = density[..., None].expand_as(nearest).gather(1, nearest)[..., 1:].mean(dim=-1)
    return around / density


def outlying(tokens: Tensor) -> Tensor:
    """The patches of each image that outlie, ``[B, N, width] -> [B, N]`` bool.

    Those whose factor is above its 95th percentile (linear between two patches).
    """
    factor = outlier_factor(tokens, NEIGHBOURS)
    return factor > factor.quantile(1 - SHARE, dim=-1, keepdim=True)


def repair_outliers(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Give each outlying patch the mean of the eight around it that do not outlie.

    Args:
        tokens: ``[B, prefix + h * w, width]``; class tokens come first and stay.
        grid: ``(h, w)`` of the patches; one too small to judge stays as it is.

    Returns:
        the same shape. A patch without a sound neighbour keeps its token.
    """
    count = grid[0] * grid[1]
    if count <= NEIGHBOURS:
        return tokens
    prefix, patches = tokens[:, :-count], tokens[:, -count:]
    sound = (~outlying(patches)).to(patches)[..., None]
    around = _sum_of_nine(patches * sound, grid) / _sum_of_nine(sound, grid).clamp_min(1)
    lonely = _sum_of_nine(sound, grid) == 0
    mended = torch.where((sound > 0) | lonely, patches, around)
    return torch.cat([prefix, mended], dim=1)


def _sum_of_nine(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Each patch's 3x3 neighbourhood summed, ``[B, h * w, K]``; beyond the edge lies nothing."""
    planes = patches.transpose(1, 2).reshape(len(patches), -1, *grid)
    sums = 9 * F.avg_pool2d(planes, 3, stride=1, padding=1)
    return sums.flatten(2).transpose(1, 2)
