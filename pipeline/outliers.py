"""Mending patches whose tokens went astray in the depth of a vision transformer.

Large towers put what concerns the whole image into a few background patches (Darcet et al., arXiv
2309.16588), which then look like nothing near them. As Bai et al., Self-Calibrated CLIP (arXiv
2411.15869) do, they are found before the last block by their local outlier factor (Breunig et al.,
LOF, SIGMOD 2000) and take the mean of their neighbours. The threshold is ours.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

NEIGHBOURS = 20  # LOF's customary number of nearest tokens
THRESHOLD = 1.5  # an inlier's factor is about 1


def outlier_factor(tokens: Tensor, neighbours: int) -> Tensor:
    """Local outlier factor of each token among its image's, ``[B, N, width] -> [B, N]``.

    The mean density around a token's nearest tokens, over the density around the token itself.
    """
    tokens = tokens.float()
    distance, nearest = torch.cdist(tokens, tokens).topk(neighbours + 1, largest=False)
    distance, nearest = distance[..., 1:], nearest[..., 1:]  # the nearest is the token itself
    reach = distance[..., -1:].expand_as(distance).gather(1, nearest)  # of each nearest token
    density = 1 / torch.maximum(distance, reach).mean(dim=-1).clamp_min(1e-10)  # [B, N]
    around = density[..., None].expand_as(distance).gather(1, nearest).mean(dim=-1)
    return around / density


def repair_outliers(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    """Give each outlying patch the mean of those around it that do not outlie.

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
    sound = (outlier_factor(patches, NEIGHBOURS) <= THRESHOLD).to(patches)[..., None]
    around = _sum_of_nine(patches * sound, grid) / _sum_of_nine(sound, grid).clamp_min(1)
    lonely = _sum_of_nine(sound, grid) == 0
    mended = torch.where((sound > 0) | lonely, patches, around)
    return torch.cat([prefix, mended], dim=1)


def _sum_of_nine(patches: Tensor, grid: tuple[int, int]) -> Tensor:
    """Each patch's 3x3 neighbourhood summed, ``[B, h * w, K]``; beyond the edge lies nothing."""
    planes = patches.transpose(1, 2).reshape(len(patches), -1, *grid)
    sums = 9 * F.avg_pool2d(planes, 3, stride=1, padding=1)
    return sums.flatten(2).transpose(1, 2)
