"""Tiny CLIP models with random weights, in folders that open_clip opens by ``local-dir:``."""

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

from pipeline.clip.dense import DenseClip, load_clip

TEXT = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
VIT = {"layers": 2, "width": 32, "head_width": 16, "patch_size": 16, "image_size": 64}
RESNET = {"layers": [1, 1, 1, 1], "width": 4, "head_width": 32, "image_size": 64}
MEAN, STD = (0.1, 0.2, 0.3), (0.5, 0.6, 0.7)


def model_config(vision: dict[str, Any]) -> dict[str, Any]:
    return {"embed_dim": 24, "vision_cfg": vision, "text_cfg": TEXT}


def random_weights(config: dict[str, Any]) -> dict[str, torch.Tensor]:
    """Weights from a fixed seed, none of them, norms and statistics included, plainly 0 or 1."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        weights: dict[str, torch.Tensor] = open_clip.CLIP(**config).state_dict()
        for value in (value for value in weights.values() if value.is_floating_point()):
            value += 0.1 * torch.rand(value.shape)
    return weights


def write_clip(folder: Path, config: dict[str, Any], weights: dict[str, torch.Tensor]) -> str:
    """Write the folder and return the name that ``load_clip`` takes."""
    folder.mkdir(parents=True, exist_ok=True)
    described = {"model_cfg": config, "preprocess_cfg": {"mean": MEAN, "std": STD}}
    (folder / "open_clip_config.json").write_text(json.dumps(described))
    save_file(weights, folder / "open_clip_model.safetensors")
    return f"local-dir:{folder}"


def random_clip(folder: Path, vision: dict[str, Any]) -> DenseClip:
    config = model_config(vision)
    return load_clip(write_clip(folder, config, random_weights(config)), None)
