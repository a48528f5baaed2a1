"""Section ``clip`` of params.yaml."""

import json
import re
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from pipeline.config.base import Count, Fraction, Precision, Section, Size, Text, Zoom

# Names beside those of the levels: folders of the store, maps of the training previews.
RESERVED = ("text", "finished", "fused", "segmenter", "noisy", "relabelled")

LOCAL_DIR = "local-dir:"
CONFIG_FILE = "open_clip_config.json"
DRAWINGS = "drawings"  # ``trained_on`` of such a file: CLIP does not know photos


class LevelParams(Section):
    """One view level of CLIP: magnification of the photo, and the windows that cover it."""

    zoom: Zoom
    window: Size
    overlap: Annotated[float, Field(ge=0, lt=1)]


class FusedParams(Section):
    """An additional level: the sum of all others, smoothed by a guided filter."""

    size: Size
    stride: Count
    radius: Count


class ClipParams(Section):
    """The frozen CLIP: model, prompts, dense features and view levels."""

    model: Text
    pretrained: Text | None
    demo_on_photos: bool
    dense: Literal["value", "vv", "sclip", "clearclip", "naclip"]
    repair_outliers: bool
    window_share: Fraction
    brightness: Annotated[float, Field(ge=0.05, le=0.95)] | None
    templates: Literal["carb", "plain"]
    class_prompts: dict[str, Annotated[list[Text], Field(min_length=1)]]
    normalisation: Literal["clip", "imagenet"]
    activation: Literal["trained", "gelu", "quick_gelu"]
    precision: Precision
    levels: dict[str, LevelParams]
    fused: FusedParams | None

    @model_validator(mode="after")
    def _levels_are_global_then_local(self) -> Self:
        if list(self.levels)[:1] != ["global"]:
            raise ValueError(f"levels: must start with 'global', got {list(self.levels)}")
        for name in self.levels:
            if name in RESERVED or not re.fullmatch("[A-Za-z][A-Za-z0-9_-]*", name):
                raise ValueError(
                    "levels: must have names of letters, digits, '-' and '_', other than "
                    f"{', '.join(RESERVED)}; got {name!r}"
                )
        return self


def knows_drawings_only(clip: ClipParams) -> bool:
    """Whether the CLIP's folder says that it was trained on drawings, as the demo's does."""
    file = Path(clip.model.removeprefix(LOCAL_DIR)) / CONFIG_FILE
    if not clip.model.startswith(LOCAL_DIR) or not file.is_file():
        return False
    try:
        content = json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return False  # reported when it is loaded
    return isinstance(content, dict) and content.get("trained_on") == DRAWINGS


def check_knows_photos(clip: ClipParams, dataset: str) -> None:
    """Refuse a CLIP of drawings for another data set than the demo, without an explicit yes.

    Args:
        clip: the section.
        dataset: ``dataset.name``.
    """
    if not clip.demo_on_photos and dataset != "demo" and knows_drawings_only(clip):
        raise ValueError(
            f"params.yaml: clip.model: {clip.model} was trained on drawings and does not know "
            f"photos, and dataset.name is '{dataset}'; set clip.model to ViT-B-16-quickgelu and "
            "clip.pretrained to openai (downloaded by `carb fetch`), or clip.demo_on_photos to "
            "true, to try the pipeline with masks that mean little"
        )
