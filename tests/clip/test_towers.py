"""Image towers: the embedding of each patch alone, supported and refused models."""

from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from timm.models.vision_transformer import ParallelThingsBlock
from torch import Tensor

from pipeline.clip.dense import DenseClip, as_the_authors, load_clip
from pipeline.clip.towers import OpenClipVit, check_tower, read_tower, refusal
from tests.helpers import clip_folder

COCA = {**clip_folder.VIT, "attentional_pool": True, "attn_pooler_heads": 4}
TIMM_VIT = {"timm_model_name": "test_vit", "image_size": 160}
TIMM_AVERAGE = {**TIMM_VIT, "timm_pool": "avg", "timm_proj": "mlp"}
TOWERS: dict[str, dict[str, Any]] = {
    "class token": {**clip_folder.VIT, "ls_init_value": 0.3, "qk_norm": True},
    "average": {**clip_folder.VIT, "pool_type": "avg", "no_ln_pre": True},
    "average of normalised": {**clip_folder.VIT, "pool_type": "avg", "final_ln_after_pool": True},
    "sine positions": {**clip_folder.VIT, "pos_embed_type": "sin_cos_2d"},
    "not square": {**clip_folder.VIT, "image_size": [32, 80]},
    "CoCa": {**COCA, "width": 64},
    "CoCa, average": {**COCA, "pool_type": "avg"},
    "ResNet": clip_folder.RESNET,
    "timm, class token": {**TIMM_VIT, "timm_pool": "token", "timm_proj": None},
    "timm, average": TIMM_AVERAGE,
    "timm, attention pool": {**TIMM_VIT, "timm_pool": "map", "timm_proj": None},
    "ConvNeXt": {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear"}
    | {"image_size": 160},
}


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("kind", TOWERS)
@torch.no_grad()
def test_a_patch_has_the_embedding_of_an_image_of_that_patch_alone(
    tmp_path: Path, kind: str
) -> None:
    clip = clip_folder.random_clip(tmp_path, TOWERS[kind])  # checks its ordinary embedding
    tower, visual, (height, width) = clip.tower, clip.model.visual, clip.image_size
    grid = height // clip.patch_size, width // clip.patch_size
    encoded = tower.encode(noise(1, 3, height, width))
    dense = tower.dense(encoded, grid)[0]  # [D, h, w]
    for row, column in [(0, 0), (0, grid[1] - 1), (grid[0] - 1, 0)]:
        if kind == "ResNet":  # its pool adds positions, which cells have not
            pool = visual.attnpool
            alone = pool.c_proj(pool.v_proj(encoded[0, :, row, column]))
        elif encoded.ndim == 4:
            alone = tower.pooled(encoded[:, :, row : row + 1, column : column + 1])[0]
        else:
            prefix = encoded.shape[1] - grid[0] * grid[1]
            token = encoded[:, prefix + row * grid[1] + column, None]  # [1, 1, width]
            # Of two equal tokens one serves as class token, and mixing them changes nothing.
            alone = tower.pooled(token.expand(1, 1 + prefix, -1))[0]
        torch.testing.assert_close(dense[:, row, column], alone, rtol=1e-5, atol=1e-5)
    larger = clip.patch_features(noise(1, 3, height, 2 * width))  # positions are resized
    assert larger.shape[2:] == (grid[0], 2 * grid[1])


def test_a_tower_that_is_run_wrongly_is_refused(vit: DenseClip) -> None:
    tower = OpenClipVit(vit.model.visual)
    check_tower(tower, vit.model, vit.image_size)
    tower.grid = (2, 8)
    with pytest.raises(ValueError, match="an embedding that differs by"):
        check_tower(tower, vit.model, vit.image_size)


def test_unsupported_modules_of_timm_are_refused(tmp_path: Path) -> None:
    visual: Any = clip_folder.random_clip(tmp_path, TIMM_AVERAGE).model.visual
    visual.trunk.reg_token = torch.nn.Parameter(torch.zeros(1, 1, visual.trunk.embed_dim))
    with pytest.raises(ValueError, match="unsupported patches, registers or positions"):
        read_tower(visual)
    visual.trunk.reg_token = None
    visual.trunk.blocks[-1] = ParallelThingsBlock(visual.trunk.embed_dim, num_heads=2)
    with pytest.raises(ValueError, match=r"unsupported blocks \(ParallelThingsBlock\)"):
        read_tower(visual)


REFUSED: dict[str, dict[str, Any]] = {
    "timm_model_name 'resnet18'": {"timm_model_name": "resnet18"},
    "(no model of timm)": {"timm_model_name": "nonsense"},
    "timm_pool 'abs_attn'": {"timm_model_name": "test_vit", "timm_pool": "abs_attn"},
    "with attentional_pool 'parallel'": {"attentional_pool": "parallel"},
    "VisionTransformer with pool_type 'none'": {"pool_type": "none"},
    "VisionTransformer with scale_heads True": {"scale_heads": True},
}


def test_an_unsupported_tower_is_refused_by_name(tmp_path: Path) -> None:
    for found, change in REFUSED.items():
        assert found in str(refusal({**clip_folder.VIT, **change}))
    config = clip_folder.model_config({**clip_folder.VIT, "pool_type": "none"})
    model = clip_folder.write_clip(tmp_path, config, {"x": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"^params\.yaml: clip\.model.*choose another") as caught:
        load_clip(model, None)
    assert "ModifiedResNet; VisionTransformer" in str(caught.value)


def test_which_of_open_clip_s_models_are_supported() -> None:
    supported = ["ViT-B-16-quickgelu", "RN50-quickgelu", "coca_ViT-L-14", "ViT-B-16-SigLIP2"]
    supported += ["convnext_large_d", "MobileCLIP2-L-14", "vit_medium_patch16_gap_256"]
    for name in supported:
        assert refusal(open_clip.get_model_config(name)["vision_cfg"]) is None, name
    for name in ["EVA02-B-16", "MobileCLIP-S1", "ViTamin-B", "PE-Core-B-16"]:
        assert refusal(open_clip.get_model_config(name)["vision_cfg"]) is not None, name


def test_another_activation_changes_every_tower_that_has_one(
    tmp_path: Path, resnet: DenseClip
) -> None:
    for vision in (clip_folder.VIT, TIMM_AVERAGE):
        clip = clip_folder.random_clip(tmp_path, vision)
        images = noise(1, 3, *clip.image_size)
        before = clip.patch_features(images)
        as_the_authors(clip, normalisation="clip", activation="quick_gelu")
        assert (clip.patch_features(images) - before).abs().max() > 1e-5
    with pytest.raises(ValueError, match=r"clip\.activation must be 'trained' for .*no GELU, got"):
        as_the_authors(resnet, normalisation="clip", activation="gelu")
