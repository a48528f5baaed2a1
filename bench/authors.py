"""CLIP as in the authors' code (commit 26f7c68), the baseline of the speed benchmarks.

Attention is computed explicitly as softmax(q k^T) v; the last block is computed in full and also
its value path; float32; one image (pseudo-masks) or one batch of crops (training) at a time.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.clip.dense import DenseClip
from pipeline.views import Box

MEAN_ZOOM = 1.5  # of the local windows, drawn from 1 to 2 at each step


def _attended(attention: Any, tokens: Tensor) -> Tensor:
    """Self-attention that materialises the attention map: ``[B, N, width]``."""
    mixed = F.linear(tokens, attention.in_proj_weight, attention.in_proj_bias)
    query, key, value = (
        part.reshape(*part.shape[:2], attention.num_heads, -1).transpose(1, 2)
        for part in mixed.chunk(3, dim=-1)
    )  # [B, heads, N, width / heads]
    scale = query.shape[-1] ** -0.5
    weights = (query * scale @ key.transpose(-2, -1)).softmax(dim=-1)  # [B, heads, N, N]
    joined = (weights @ value).transpose(1, 2).flatten(2)
    result: Tensor = attention.out_proj(joined)
    return result


def _block(block: Any, tokens: Tensor) -> Tensor:
    tokens = tokens + _attended(block.attn, block.ln_1(tokens))
    result: Tensor = tokens + block.mlp(block.ln_2(tokens))
    return result


def _values(block: Any, tokens: Tensor) -> Tensor:
    """The value path of the last block."""
    attention, width = block.attn, block.attn.embed_dim
    normed = block.ln_1(tokens)
    values = F.linear(normed, attention.in_proj_weight, attention.in_proj_bias)[..., 2 * width :]
    kept = tokens + attention.out_proj(values)
    result: Tensor = kept + block.mlp(block.ln_2(kept))
    return result


@torch.no_grad()
def patch_logits(clip: DenseClip, images: Tensor, text: Tensor) -> Tensor:
    """Patch logits computed as in the authors' code; equal to `DenseClip.patch_logits`.

    Args:
        clip: an open_clip transformer.
        images: ``[B, 3, H, W]`` float, CLIP-normalised, sides multiples of the patch.
        text: ``[C, D]``.

    Returns:
        ``[B, C, h, w]`` float32.
    """
    visual: Any = clip.model.visual
    patches = visual.conv1(images)
    grid = patches.shape[-2:]
    first, trained = visual.positional_embedding[:1], visual.positional_embedding[1:]
    planes = trained.T.reshape(1, -1, *visual.grid_size)
    if tuple(grid) != tuple(visual.grid_size):
        planes = F.interpolate(planes, size=grid, mode="bicubic", align_corners=False)
    tokens = patches.flatten(2).transpose(1, 2) + planes[0].flatten(1).T
    class_token = (visual.class_embedding + first[0]).expand(len(images), 1, -1)
    tokens = visual.ln_pre(torch.cat([class_token, tokens], dim=1))
    *blocks, last = visual.transformer.resblocks
    for block in blocks:
        tokens = _block(block, tokens)
    values, _ = _values(last, tokens), _block(last, tokens)  # the authors compute both
    features = F.normalize(visual.ln_post(values)[:, 1:] @ visual.proj, dim=-1)
    logits = features @ F.normalize(text, dim=1).T  # [B, h * w, C]
    return logits.transpose(1, 2).reshape(len(images), -1, *grid)


@torch.no_grad()
def online_masks(
    logits: Any,
    images: Tensor,
    boxes: Sequence[Box],
    image_labels: Tensor,
    *,
    zoom: float,
) -> tuple[Tensor, Tensor]:
    """Pseudo-masks of crops and of their magnified windows, with CLIP inside the training step.

    Args:
        logits: CLIP-normalised images -> patch logits.
        images: crops, ``[B, 3, H, W]`` float.
        boxes: one window per crop.
        image_labels: ``[B, C]`` bool.
        zoom: magnification of the windows.

    Returns:
        ``[B, H, W]`` and ``[B, h, w]`` int64.
    """
    windows = torch.stack(
        [
            image[:, int(b.top) : int(b.top + b.height), int(b.left) : int(b.left + b.width)]
            for image, b in zip(images, boxes, strict=True)
        ]
    )
    large = F.interpolate(windows, scale_factor=zoom, mode="bilinear", align_corners=False)
    absent = ~image_labels[:, :, None, None]
    masks = []
    for seen, size in ((images, images.shape[-2:]), (large, windows.shape[-2:])):
        full = F.interpolate(logits(seen), size, mode="bilinear", align_corners=False)
        masks.append(full.masked_fill(absent, -torch.inf).max(dim=1).indices)
    return masks[0], masks[1]
