"""Which image towers can be read, and whether one is read right."""

from typing import Any

import open_clip
import timm
import torch
import torch.nn.functional as F
from torch import nn

from pipeline.clip.towers import Tower

SUPPORTED = (
    "ModifiedResNet; VisionTransformer (pool_type tok or avg, plain attention, or CoCa's "
    "attentional_pool true); through timm a vision_transformer with plain patches (SigLIP and "
    "others; pool map, token or avg) or a convnext"
)
_ATTENTION_KINDS = ("scale_heads", "scale_attn_inner", "scale_attn", "scaled_cosine_attn")
_TIMM_MODULES = ("timm.models.vision_transformer", "timm.models.convnext")


def refusal(vision: dict[str, Any]) -> str | None:
    """Why an image tower is not supported, by open_clip's names; None if it is.

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
        ValueError: they differ by more than 1e-4, for a vector of norm 1.
    """
    image = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(0))
    encoded = tower.encode(image)
    ours = F.normalize(tower.pooled(encoded), dim=-1)
    theirs = model.encode_image(image, normalize=True)  # type: ignore[operator]
    error = float((ours - theirs).abs().max())
    if not error <= 1e-4:
        versions = f"open_clip {open_clip.__version__} and timm {timm.__version__}"
        raise ValueError(
            f"an image tower whose embedding this pipeline computes as {versions} do (they differ "
            f"by {error:.1g})"
        )
