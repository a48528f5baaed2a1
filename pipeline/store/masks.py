"""Hard pseudo-masks from cached logits, and the check that a store fits params.yaml."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline.config.clip import ClipParams
from pipeline.guided_filter import FILTER_VERSION
from pipeline.scenes.classes import LabelSpace
from pipeline.store.reader import PseudoMaskStore

REPAIR_VERSION = 2  # raise it when clip.last_block.repair_outliers gives other tokens


def clip_settings(params: ClipParams, words: list[list[str]]) -> dict[str, Any]:
    """The part of a store's recipe that params.yaml alone determines."""
    return {
        "dense": params.dense,
        "repair_outliers": params.repair_outliers and {"maths": REPAIR_VERSION},
        "templates": params.templates,
        "words": words,
        "normalisation": params.normalisation,
        "activation": params.activation,
        "levels": {name: level.model_dump(mode="json") for name, level in params.levels.items()},
        "fused": params.fused and params.fused.model_dump(mode="json") | {"maths": FILTER_VERSION},
    }


def check_store(store: PseudoMaskStore, params: ClipParams, label_space: LabelSpace) -> None:
    """Refuse a store that was made for other parameters or another data set.

    Raises:
        ValueError: they differ; names what differs.
    """
    if store.classes != label_space.names:
        raise ValueError(
            f"{store.path} was written for {len(store.classes)} classes "
            f"({', '.join(store.classes[:3])}, ...), params.yaml asks for '{label_space.name}' "
            f"({len(label_space.classes)}); run `dvc repro pseudo`"
        )
    recipe: dict[str, Any] = store.attributes["recipe"]
    for name, wanted in clip_settings(params, label_space.words(params.class_prompts)).items():
        if recipe.get(name) != wanted:
            parameter = {"words": "class_prompts"}.get(name, name)
            raise ValueError(
                f"{store.path} was written for another clip.{parameter} than params.yaml has; "
                "run `dvc repro pseudo`"
            )


def check_photos(store: PseudoMaskStore, digests: Mapping[str, str]) -> None:
    """Refuse a store whose logits are of other photos under the same keys.

    Args:
        store: the pseudo-masks; photos that it lacks are ignored.
        digests: SHA-256 of the photos' files, by key.

    Raises:
        ValueError: a photo changed; names one.
    """
    before = dict(zip(store.keys, store.attributes["digests"], strict=True))
    changed = [key for key, digest in digests.items() if before.get(key, digest) != digest]
    if changed:
        raise ValueError(
            f"{store.path}: '{changed[0]}' has changed since its logits were computed "
            f"({len(changed)} of {len(digests)} photos have); run `dvc repro pseudo`"
        )


def hard_mask(logits: Tensor, image_labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pseudo-mask of a whole photo: upsampled logits, arg-max over the classes present.

    Args:
        logits: ``[C, h, w]`` float, a grid that spans the photo.
        image_labels: ``[C]`` bool.
        size: ``(height, width)`` of the mask.

    Returns:
        ``[H, W]`` int64.
    """
    full = upsampled(logits, size)
    present = full.masked_fill(~image_labels[:, None, None], -torch.inf)
    return present.max(dim=0).indices  # argmax is 6 times as slow on a CPU


def upsampled(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits of a whole photo, upsampled to its mask: ``[C, h, w] -> [C, H, W]`` float32."""
    return F.interpolate(logits[None].float(), size, mode="bilinear", align_corners=False)[0]
