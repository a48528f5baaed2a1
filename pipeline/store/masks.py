"""The cached logits as pseudo-masks, and whether a store is the one that params.yaml asks for."""

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from pipeline import guided_filter as edges
from pipeline.config.clip import ClipParams
from pipeline.scenes.classes import LabelSpace
from pipeline.store.reader import PseudoMaskStore

# Raise it when outliers changes what is stored: stores without repair stay as they are.
REPAIR_MATHS = 2


def clip_settings(params: ClipParams, words: list[list[str]]) -> dict[str, Any]:
    """The part of a store's recipe that params.yaml alone decides."""
    return {
        "dense": params.dense,
        "repair_outliers": params.repair_outliers and {"maths": REPAIR_MATHS},
        "templates": params.templates,
        "words": words,
        "normalisation": params.normalisation,
        "activation": params.activation,
        "levels": {name: level.model_dump(mode="json") for name, level in params.levels.items()},
        "fused": params.fused and params.fused.model_dump(mode="json") | {"maths": edges.MATHS},
    }


def check_store(store: PseudoMaskStore, params: ClipParams, label_space: LabelSpace) -> None:
    """Refuse a store that was made for other parameters or another data set.

    Raises:
        ValueError: names the store, what differs and what to do.
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
    """Refuse a store whose logits are of other pictures under the same keys.

    Args:
        store: the pseudo-masks; photos that it lacks are passed over.
        digests: SHA-256 of the photos' files, by key.

    Raises:
        ValueError: names one of the photos and says what to do.
    """
    before = dict(zip(store.keys, store.attributes["digests"], strict=True))
    changed = [key for key, digest in digests.items() if before.get(key, digest) != digest]
    if changed:
        raise ValueError(
            f"{store.path}: holds logits of another picture than '{changed[0]}' is now "
            f"({len(changed)} of {len(digests)} photos changed since CLIP saw them); run "
            "`dvc repro pseudo`"
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
    return present.max(dim=0).indices  # argmax(dim=0) is 6 times as slow on a CPU


def upsampled(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits of a whole photo at the size of its mask: ``[C, h, w] -> [C, H, W]`` float32."""
    return F.interpolate(logits[None].float(), size, mode="bilinear", align_corners=False)[0]
