"""Image towers of open_clip, run so that each patch gets an embedding of its own.

Every tower mixes its patches a last time before it projects them into the text space: a vision
transformer in its last block, others in an attention pool, a ConvNeXt in an average. The value path
leaves out this last mixing, so that each patch keeps its own value vector. Source: Zhou et al.,
Extract Free Dense Labels from CLIP (arXiv 2112.01071). For other ways to run the last block see
`pipeline.clip.last_block`.

A tower here runs the model's own modules in two steps: ``encode`` up to the last mixing, then
``dense`` (patch by patch) or ``pooled`` (the ordinary embedding). `check_tower` compares the latter
with the model's own embedding, to detect modules that are used wrongly.
"""

from typing import Any, Protocol

import open_clip
import timm
import torch
import torch.nn.functional as F
from open_clip.modified_resnet import ModifiedResNet
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from timm.layers.attention import Attention
from timm.layers.patch_embed import PatchEmbed
from timm.models.vision_transformer import Block
from torch import Tensor, nn

from pipeline.clip.last_block import DENSE_MODES, DenseMode, Grid, dense_block

_CONV_STRIDE = 32  # pixels of one cell of the last stage of a ModifiedResNet or ConvNeXt
VALUE = DENSE_MODES["value"]
SUPPORTED = (
    "ModifiedResNet; VisionTransformer (pool_type tok or avg, plain attention, or CoCa's "
    "attentional_pool true); timm's vision_transformer with plain patches (SigLIP and others; "
    "timm_pool map, token or avg) or convnext"
)
_ATTENTION_KINDS = ("scale_heads", "scale_attn_inner", "scale_attn", "scaled_cosine_attn")
_TIMM_MODULES = ("timm.models.vision_transformer", "timm.models.convnext")


class Tower(Protocol):
    """An image tower in steps.

    Attributes:
        stride: side of a patch in pixels.
        block: the last block of a transformer, where that is the last mixing; else None.
        mode: how ``dense`` runs that block.
    """

    stride: int
    block: nn.Module | None = None
    mode: DenseMode = VALUE

    def encode(self, images: Tensor) -> Tensor:
        """Everything before the last mixing; images ``[B, 3, H, W]``, sides whole strides."""
        ...

    def dense(self, encoded: Tensor, grid: Grid) -> Tensor:
        """Embedding of each patch, ``[B, D, h, w]``, not normalised."""
        ...

    def pooled(self, encoded: Tensor) -> Tensor:
        """The model's ordinary embedding, ``[B, D]``; only at its own image size."""
        ...


def _positions(trained: Tensor, old: Grid, new: Grid) -> Tensor:
    """Position embeddings ``[h * w, width]`` for another grid: bicubic, align_corners False.

    The authors compare token counts, so a 2x8 grid takes the 4x4 grid's positions unchanged; we
    compare grids.
    """
    if old == new:
        return trained
    planes = trained.T.reshape(1, -1, *old)  # [1, width, h0, w0]
    return F.interpolate(planes, size=new, mode="bicubic", align_corners=False)[0].flatten(1).T


def _as_map(features: Tensor, grid: Grid) -> Tensor:
    """``[B, h * w, D]`` -> ``[B, D, h, w]``."""
    return features.transpose(1, 2).reshape(len(features), -1, *grid)


def _value(attention: Any, tokens: Tensor) -> Tensor:
    """Attention output of each token that attends to itself alone."""
    width = attention.out_proj.in_features
    shared = attention.in_proj_weight  # None where keys are of another width than queries
    weight = attention.v_proj_weight if shared is None else shared[2 * width :]
    values: Tensor = attention.out_proj(F.linear(tokens, weight, attention.in_proj_bias[-width:]))
    return values


def _through(block: Any, tokens: Tensor) -> Tensor:
    """An unchanged block of open_clip, ``[B, N, width]``.

    The block's own forward pass materialises the attention map: 1.3 times as slow on a CPU.
    """
    attention = block.attn
    if not isinstance(attention, nn.MultiheadAttention):  # with normalised queries and keys
        normed: Tensor = block(tokens)
        return normed
    mixed = F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias)
    heads = mixed.reshape(*mixed.shape[:2], 3, attention.num_heads, -1).permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(*heads).transpose(1, 2).flatten(2)
    tokens = tokens + block.ls_1(attention.out_proj(attended))
    whole: Tensor = tokens + block.ls_2(block.mlp(block.ln_2(tokens)))
    return whole


class OpenClipVit(Tower):
    """open_clip's own transformer, pooled by class token, average, or CoCa's attention pool."""

    def __init__(self, visual: VisionTransformer) -> None:
        self.visual, self.stride = visual, int(visual.patch_size[0])
        self.block = visual.transformer.resblocks[-1] if visual.attn_pool is None else None
        self.grid: Grid = tuple(visual.grid_size)

    def encode(self, images: Tensor) -> Tensor:
        """Tokens ``[B, 1 + h * w, width]``, the class token first, before the last mixing."""
        visual = self.visual
        patches = visual.conv1(images)  # [B, width, h, w]
        grid = (patches.shape[-2], patches.shape[-1])
        first, trained = visual.positional_embedding[:1], visual.positional_embedding[1:]
        patches = patches.flatten(2).transpose(1, 2) + _positions(trained, self.grid, grid)
        class_token = (visual.class_embedding + first[0]).expand(len(images), 1, -1)
        tokens: Tensor = visual.ln_pre(torch.cat([class_token, patches], dim=1))
        blocks = visual.transformer.resblocks
        for block in blocks if visual.attn_pool is not None else blocks[:-1]:
            tokens = _through(block, tokens)
        return tokens

    def dense(self, encoded: Tensor, grid: Grid) -> Tensor:
        """See `Tower`. ``ln_post`` acts on each patch, even where the model applies it later."""
        visual = self.visual
        if self.block is not None:
            values = dense_block(self.block, encoded, grid, self.mode)
        else:
            values = _value(visual.attn_pool.attn, visual.attn_pool.ln_k(encoded[:, 1:]))
        return _as_map(visual.ln_post(values) @ visual.proj, grid)

    def pooled(self, encoded: Tensor) -> Tensor:
        if self.block is not None:
            encoded = self.block(encoded)
        embedding: Tensor = self.visual._pool(encoded)[0] @ self.visual.proj
        return embedding


class ClipResNet(Tower):
    """CLIP's ResNet, whose attention pool is its last mixing."""

    stride = _CONV_STRIDE

    def __init__(self, visual: ModifiedResNet) -> None:
        self.visual = visual

    def encode(self, images: Tensor) -> Tensor:
        """Cells of the last stage, ``[B, width, h, w]``."""
        stages = self.visual.forward_intermediates(images, indices=1, intermediates_only=True)
        cells: Tensor = stages["image_intermediates"][-1]
        return cells

    def dense(self, encoded: Tensor, grid: Grid) -> Tensor:
        """See `Tower`: ``c_proj(v_proj(x))`` on each cell, without its position embedding."""
        pool = self.visual.attnpool
        features: Tensor = pool.c_proj(pool.v_proj(encoded.permute(0, 2, 3, 1)))  # [B, h, w, D]
        return features.permute(0, 3, 1, 2)

    def pooled(self, encoded: Tensor) -> Tensor:
        embedding: Tensor = self.visual.attnpool(encoded)
        return embedding


class TimmVit(Tower):
    """timm's transformer, pooled by SigLIP's attention pool (``map``), class token or average."""

    def __init__(self, visual: TimmModel) -> None:
        self.head, self.trunk = visual.head, visual.trunk
        self.block = self.trunk.blocks[-1] if self.trunk.attn_pool is None else None
        self.stride = int(self.trunk.patch_embed.patch_size[0])
        self.grid: Grid = tuple(self.trunk.patch_embed.grid_size)

    def encode(self, images: Tensor) -> Tensor:
        """Tokens ``[B, prefix + h * w, width]`` before the last mixing."""
        trunk = self.trunk
        patches = trunk.patch_embed.proj(images)  # [B, width, h, w]
        grid = (patches.shape[-2], patches.shape[-1])
        trained = trunk.pos_embed[0]
        prefix = len(trained) - self.grid[0] * self.grid[1]  # positions of the class token: 0 or 1
        positions = _positions(trained[prefix:], self.grid, grid)
        tokens: Tensor = trunk.patch_embed.norm(patches.flatten(2).transpose(1, 2)) + positions
        if trunk.cls_token is not None:
            first = trunk.cls_token[0] + (trained[:1] if prefix else 0)
            tokens = torch.cat([first.expand(len(images), 1, -1), tokens], dim=1)
        tokens = trunk.norm_pre(tokens)
        for block in trunk.blocks if trunk.attn_pool is not None else trunk.blocks[:-1]:
            tokens = block(tokens)
        return tokens

    def dense(self, encoded: Tensor, grid: Grid) -> Tensor:
        trunk, patches = self.trunk, encoded[:, self.trunk.num_prefix_tokens :]
        if self.block is not None:
            values = trunk.norm(dense_block(self.block, encoded, grid, self.mode))
        else:  # attention over a single patch returns its value
            single = trunk.norm(patches).flatten(0, 1)[:, None]  # [B * h * w, 1, width]
            values = trunk.attn_pool(single).reshape(*patches.shape[:2], -1)
        return _as_map(self.head(trunk.head(trunk.fc_norm(values))), grid)

    def pooled(self, encoded: Tensor) -> Tensor:
        if self.block is not None:
            encoded = self.block(encoded)
        embedding: Tensor = self.head(self.trunk.forward_head(self.trunk.norm(encoded)))
        return embedding


class ConvNext(Tower):
    """timm's ConvNeXt, whose last mixing is the average over its cells."""

    stride = _CONV_STRIDE

    def __init__(self, visual: TimmModel) -> None:
        self.head, self.trunk = visual.head, visual.trunk

    def encode(self, images: Tensor) -> Tensor:
        """Cells of the last stage, ``[B, width, h, w]``."""
        cells: Tensor = self.trunk.forward_features(images)
        return cells

    def dense(self, encoded: Tensor, grid: Grid) -> Tensor:
        """See `Tower`: the head on each cell, as if the image were that cell."""
        cells = encoded.permute(0, 2, 3, 1).flatten(0, 2)[:, :, None, None]  # [B * h * w, C, 1, 1]
        features: Tensor = self.head(self.trunk.forward_head(cells))
        return features.reshape(len(encoded), *grid, -1).permute(0, 3, 1, 2)

    def pooled(self, encoded: Tensor) -> Tensor:
        embedding: Tensor = self.head(self.trunk.forward_head(encoded))
        return embedding


def read_tower(visual: nn.Module) -> Tower:
    """The tower of a loaded model that `refusal` accepts; a ValueError names unsupported parts."""
    if isinstance(visual, ModifiedResNet):
        return ClipResNet(visual)
    if isinstance(visual, VisionTransformer):
        return OpenClipVit(visual)
    trunk: Any = visual.trunk
    if not isinstance(trunk, timm.models.VisionTransformer):
        return ConvNext(visual)
    plain = type(trunk.patch_embed) is PatchEmbed and trunk.reg_token is None
    if not plain or trunk.pos_embed is None or getattr(trunk.attn_pool, "pos_embed", None):
        raise ValueError("unsupported patches, registers or positions")
    last = trunk.blocks[-1]
    plain = type(last) is Block and type(last.attn) is Attention and last.attn.gate is None
    if trunk.attn_pool is None and not plain:
        raise ValueError(f"unsupported blocks ({type(last).__name__})")
    return TimmVit(visual)


def refusal(vision: dict[str, Any]) -> str | None:
    """Why an image tower is not supported, in open_clip's names; None if it is.

    Args:
        vision: ``vision_cfg`` of the model's configuration; nothing is built or downloaded.
    """
    if name := vision.get("timm_model_name"):
        known = timm.is_model(name)
        module = timm.model_entrypoint(name).__module__ if known else "no model of timm"
        pool = vision.get("timm_pool", "avg")
        if module in _TIMM_MODULES and pool in ("", "avg", "map", "token"):
            return None
        kind = module.removeprefix("timm.models.")
        return f"TimmModel with timm_model_name {name!r} ({kind}) and timm_pool {pool!r}"
    found = {key: vision[key] for key in _ATTENTION_KINDS if vision.get(key)}
    if vision.get("pool_type", "tok") not in ("tok", "avg"):
        found["pool_type"] = vision["pool_type"]
    if vision.get("attentional_pool") not in (None, False, True):
        found["attentional_pool"] = vision["attentional_pool"]
    if not found:
        return None
    return "VisionTransformer with " + ", ".join(f"{key} {value!r}" for key, value in found.items())


@torch.no_grad()
def check_tower(tower: Tower, model: nn.Module, size: tuple[int, int]) -> None:
    """Compare the ordinary embedding through ``tower`` with the model's own, on a random image.

    Args:
        tower: from `read_tower`.
        model: the open_clip model.
        size: ``(height, width)`` that it was trained with, pixels.

    Raises:
        ValueError: they differ by more than 1e-4; both have norm 1.
    """
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    encoded = tower.encode(image)
    ours = F.normalize(tower.pooled(encoded), dim=-1)
    theirs = model.encode_image(image, normalize=True)  # type: ignore[operator]
    error = float((ours - theirs).abs().max())
    if not error <= 1e-4:
        versions = f"open_clip {open_clip.__version__} and timm {timm.__version__}"
        raise ValueError(
            f"an embedding that differs by {error:.1g} from the one that {versions} compute"
        )
