"""Image towers: each patch alone, the ordinary embedding, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from pipeline.clip.dense import as_the_authors, load_clip
from pipeline.clip.towers import OpenClipVit, check_tower, refusal
from tests.helpers import clip_folder

COCA = {**clip_folder.VIT, "attentional_pool": True, "attn_pooler_heads": 4}
TIMM_VIT = {"timm_model_name": "test_vit", "image_size": 160}
TOWERS: dict[str, dict[str, Any]] = {
    "class token": clip_folder.VIT,
    "average": {**clip_folder.VIT, "pool_type": "avg"},
    "average of normalised": {**clip_folder.VIT, "pool_type": "avg", "final_ln_after_pool": True},
    "no norm before": {**clip_folder.VIT, "no_ln_pre": True},
    "layer scale": {**clip_folder.VIT, "ls_init_value": 0.3},
    "query and key norm": {**clip_folder.VIT, "qk_norm": True},
    "sine positions": {**clip_folder.VIT, "pos_embed_type": "sin_cos_2d"},
    "not square": {**clip_folder.VIT, "image_size": [32, 80]},
    "CoCa": COCA,
    "CoCa of another width": {**COCA, "width": 64},
    "CoCa, average": {**COCA, "pool_type": "avg"},
    "ResNet": clip_folder.RESNET,
    "timm, class token": {**TIMM_VIT, "timm_pool": "token", "timm_proj": "linear"},
    "timm, average": {**TIMM_VIT, "timm_pool": "avg", "timm_proj": "mlp"},
    "timm, attention pool": {**TIMM_VIT, "timm_pool": "map", "timm_proj": None},
    "timm, head": {**TIMM_VIT, "timm_pool": "token", "timm_proj": None},
    "ConvNeXt": {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": "linear"}
    | {"image_size": 160},
    "ConvNeXt, mlp": {"timm_model_name": "test_convnext2", "timm_pool": "", "timm_proj": "mlp"}
    | {"image_size": 160},
}


def noise(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("kind", TOWERS)
def test_the_ordinary_embedding_is_the_model_s_own(tmp_path: Path, kind: str) -> None:
    clip = clip_folder.random_clip(tmp_path, TOWERS[kind])
    images = noise(2, 3, *clip.image_size)
    with torch.no_grad():
        ours = clip.tower.pooled(clip.tower.encode(images))
        theirs: Tensor = clip.model.encode_image(images)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", TOWERS)
@torch.no_grad()
def test_a_patch_s_feature_is_what_the_last_mixing_makes_of_that_patch_alone(
    tmp_path: Path, kind: str
) -> None:
    clip = clip_folder.random_clip(tmp_path, TOWERS[kind])
    tower, visual = clip.tower, clip.model.visual
    grid = tuple(side // clip.patch_size for side in clip.image_size)
    encoded = tower.encode(noise(1, 3, *clip.image_size))
    dense = tower.dense(encoded, grid)[0]  # [D, h, w]
    for row, column in [(0, 0), (0, grid[1] - 1), (grid[0] - 1, 0)]:
        if encoded.ndim == 4 and kind == "ResNet":  # its pool adds positions, which cells have not
            pool = visual.attnpool
            alone = pool.c_proj(pool.v_proj(encoded[0, :, row, column]))
        elif encoded.ndim == 4:
            alone = tower.pooled(encoded[:, :, row : row + 1, column : column + 1])[0]
        else:
            prefix = encoded.shape[1] - grid[0] * grid[1]
            token = encoded[:, prefix + row * grid[1] + column, None]  # [1, 1, width]
            # Of two equal tokens one passes for the class token, and the mixing changes nothing.
            alone = tower.pooled(token.expand(1, 1 + prefix, -1))[0]
        torch.testing.assert_close(dense[:, row, column], alone, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["class token", "CoCa", "timm, average", "timm, attention pool"])
def test_positions_are_stretched_to_the_grid(tmp_path: Path, kind: str) -> None:
    clip = clip_folder.random_clip(tmp_path, TOWERS[kind])
    height, width = clip.image_size
    features = clip.patch_features(noise(1, 3, height // 2, 2 * width))
    assert features.shape[2:] == (height // 2 // 16, 2 * width // 16)
    assert clip.patch_features(noise(1, 3, height, width)).shape[2:] == (height // 16, width // 16)


def test_a_tower_read_wrongly_is_refused(tmp_path: Path) -> None:
    clip = clip_folder.random_clip(tmp_path, clip_folder.VIT)
    clip.tower.visual.transformer.resblocks[0].ln_1.bias.data += 1  # type: ignore[attr-defined]
    check_tower(clip.tower, clip.model, clip.image_size)  # both read the same modules
    tower = OpenClipVit(clip.model.visual)
    tower.grid = (2, 8)
    with pytest.raises(ValueError, match="an image tower whose embedding this pipeline computes"):
        check_tower(tower, clip.model, clip.image_size)


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "a ResNet of timm": ({"timm_model_name": "resnet18"}, "TimmModel with timm_model_name 'res"),
    "EVA": (
        {"timm_model_name": "eva02_base_patch16_clip_224", "timm_pool": "token"},
        "'eva02_base_patch16_clip_224' (eva)",
    ),
    "nothing of timm": ({"timm_model_name": "nonsense"}, "(no model of timm)"),
    "parallel pools": ({"attentional_pool": "parallel"}, "with attentional_pool 'parallel'"),
    "no pool": ({"pool_type": "none"}, "VisionTransformer with pool_type 'none'"),
    "scaled heads": ({"scale_heads": True}, "VisionTransformer with scale_heads True"),
    "a pool of another kind": (
        {"timm_model_name": "test_vit", "timm_pool": "abs_attn"},
        "'test_vit' (vision_transformer) and timm_pool 'abs_attn'",
    ),
    "parallel blocks": (
        {"timm_model_name": "vit_small_patch16_18x2_224", "timm_pool": "avg", "image_size": 224},
        "unsupported blocks (ParallelThingsBlock)",
    ),
    "registers": (
        {"timm_model_name": "test_vit2", "timm_pool": "avg", "timm_proj": "linear"},
        "unsupported patches, registers or positions",
    ),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_tower_without_a_value_path_here_is_refused_by_name(tmp_path: Path, kind: str) -> None:
    change, found = REFUSED[kind]
    vision = {**clip_folder.VIT, "image_size": 160, **change}
    config = clip_folder.model_config(vision)
    built = kind in ("registers", "parallel blocks")  # what no configuration tells
    weights = clip_folder.random_weights(config) if built else {}
    model = clip_folder.write_clip(tmp_path, config, weights or {"x": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"^params\.yaml: clip\.model.*choose another") as caught:
        load_clip(model, None)
    assert found in str(caught.value)
    assert "ModifiedResNet; VisionTransformer" in str(caught.value)


def test_open_clip_s_own_configurations_are_told_apart() -> None:
    from open_clip import get_model_config

    supported = ["ViT-B-16-quickgelu", "RN50-quickgelu", "coca_ViT-L-14", "ViT-B-16-SigLIP2"]
    supported += ["convnext_large_d", "MobileCLIP2-L-14", "vit_medium_patch16_gap_256"]
    for name in supported:
        assert refusal(get_model_config(name)["vision_cfg"]) is None, name
    for name in ["EVA02-B-16", "MobileCLIP-S1", "ViTamin-B", "PE-Core-B-16"]:
        assert refusal(get_model_config(name)["vision_cfg"]) is not None, name


@pytest.mark.parametrize("kind", ["class token", "timm, average"])
def test_another_activation_changes_every_tower_that_has_one(tmp_path: Path, kind: str) -> None:
    clip = clip_folder.random_clip(tmp_path, TOWERS[kind])
    images = noise(1, 3, *clip.image_size)
    before = clip.patch_features(images)
    as_the_authors(clip, normalisation="clip", activation="quick_gelu")
    assert (clip.patch_features(images) - before).abs().max() > 1e-5


def test_another_activation_of_a_tower_without_one_is_refused(tmp_path: Path) -> None:
    clip = clip_folder.random_clip(tmp_path, clip_folder.RESNET)
    with pytest.raises(ValueError, match=r"clip\.activation must be 'trained' for .*no GELU, got"):
        as_the_authors(clip, normalisation="clip", activation="gelu")
