"""Levels of the store: grid and logits of a photo at each, the fused level, and probe logits.

Probe logits reveal cached logits that other code computed: a drawn image goes through the same
computation as a photo, at every level, in float32 on the CPU, and the result is kept in the store.
Cached logits are reused only if today's code gives the same probe logits, up to rounding.
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pipeline.clip.dense import DenseClip
from pipeline.clip.last_block import repair_outliers
from pipeline.clip.windows import cover_features, exposed, magnified
from pipeline.config.clip import ClipParams, FusedParams, LevelParams
from pipeline.guided_filter import fuse_levels
from pipeline.store.plan import FUSED, Grid
from pipeline.views import fitted_size, level_size

SIDE = 5  # of a probe window at most, in patches
MORE = (1.3, 4.3)  # patches beyond one window, so that several overlap and the image is resized
REPAIRED = "repaired tokens"  # entry of a probe beside the levels


def level_grid(size: tuple[int, int], level: LevelParams, patch_size: int) -> Grid:
    """Rows and columns of a photo's patches at a level of CLIP."""
    height, width = level_size(size, zoom=level.zoom, patch_size=patch_size)
    return height // patch_size, width // patch_size


def fused_grid(size: tuple[int, int], fused: FusedParams) -> Grid:
    """Rows and columns of a photo's fused level."""
    height, width = fitted_size(size, base_size=fused.size, stride=fused.stride)
    return height // fused.stride, width // fused.stride


def level_logits(pixels: Tensor, level: LevelParams, clip: DenseClip, text: Tensor) -> Tensor:
    """Logits of a magnified photo, ``[H, W, 3]`` uint8 -> ``[C, h, w]`` float32."""
    return cover_features(pixels, level, clip, lambda windows: clip.patch_logits(windows, text))


def fused_logits(photo: Image.Image, grids: list[Tensor], fused: FusedParams) -> Tensor:
    """All levels of a photo fused into one, ``[C, h, w]`` each -> ``[C, h, w]`` float32."""
    rows, columns = fused_grid((photo.height, photo.width), fused)
    size = (rows * fused.stride, columns * fused.stride)
    return fuse_levels(photo, grids, size=size, stride=fused.stride, radius=fused.radius)


def probe_logits(clip: DenseClip, text: Tensor, params: ClipParams) -> dict[str, np.ndarray]:
    """Logits of a drawn image at each level, ``[C, h, w]`` float32.

    Outlier repair needs more patches than the small windows have: it is probed on made-up tokens.

    Args:
        clip: the frozen model, on the CPU.
        text: class embeddings, ``[C, D]``.
        params: the levels, and how they are fused.
    """
    patch, grids = clip.patch_size, []
    for level in params.levels.values():
        cells = [min(SIDE, max(1, side // patch)) for side in level.window]
        small = level.model_copy(update={"window": tuple(patch * cell for cell in cells)})
        size = [(c + more) * patch / level.zoom for c, more in zip(cells, MORE, strict=True)]
        drawn = _drawn(max(1, round(size[0])), max(1, round(size[1])))
        drawn = exposed(drawn, params.brightness)
        grids.append(level_logits(magnified(drawn, small, patch_size=patch), small, clip, text))
    probe = dict(zip(params.levels, grids, strict=True))
    if params.fused is not None:
        stride = params.fused.stride
        few = params.fused.model_copy(update={"size": (10 * stride, 14 * stride)})
        probe[FUSED] = fused_logits(_drawn(10 * stride, 14 * stride), grids, few)
    if clip.repair:
        probe[REPAIRED] = repair_outliers(_outlying_tokens(), (12, 12))[0]
    return {name: grid.cpu().numpy() for name, grid in probe.items()}


def _drawn(height: int, width: int) -> Image.Image:
    """Smooth colours, the same scene at every size."""
    numbers = np.arange(4 * 6 * 3).reshape(4, 6, 3)
    colours = ((numbers * numbers * 37 + 11 * numbers) % 256).astype(np.uint8)
    return Image.fromarray(colours).resize((width, height), Image.Resampling.BICUBIC)


def _outlying_tokens() -> Tensor:
    """Tokens ``[1, 144, 8]`` of widely spread outlier factors: a changed share selects others."""
    count = torch.arange(144, dtype=torch.float64)[:, None]
    waves = torch.tensor([0.37, 0.73, 1.1, 1.7, 2.3, 2.9, 3.1, 0.11], dtype=torch.float64)
    far = torch.zeros(144, 1, dtype=torch.float64)
    far[6::8, 0] = torch.linspace(0.8, 2.4, 18, dtype=torch.float64)
    tokens = torch.sin(count * waves) + far * torch.cos(count * torch.arange(1, 9))
    return tokens[None].float()
