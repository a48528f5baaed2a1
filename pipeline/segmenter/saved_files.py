"""What stands beside a segmenter's weights, checked before any library acts on it.

A segmenter is a folder that people pass on. smp would take a class of any name from its
configuration, and timm would fetch an encoder of any name from the internet.
"""

import inspect
import json
from pathlib import Path
from typing import Annotated, Any

import segmentation_models_pytorch as smp
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from torch import nn

from pipeline.segmenter.encoder import check_encoder
from pipeline.system.files import file_digest
from pipeline.system.text import error_text, rebuild_hint, short_repr

ABOUT_FILE, CONFIG_FILE, WEIGHTS_FILE = "carb.json", "config.json", "model.safetensors"
# Arguments of smp's models that this pipeline sets itself, or that would change what they return.
_OURS = {"self", "kwargs", "encoder_name", "encoder_weights", "in_channels", "classes"}
_OURS |= {"activation", "aux_params"}
# Not the architecture's own: timm's transformers need them to see photos of any size.
_TIMM_OPTIONS = {"dynamic_img_size", "img_size", "drop_path_rate"}
_FIXED = {"in_channels": 3, "activation": None, "aux_params": None}
Level = Annotated[int, Field(ge=0, le=255)]
Side = Annotated[int, Field(gt=0, le=2**15)]  # as in params.yaml
Deviation = Annotated[FiniteFloat, Field(gt=0)]


class AboutClass(BaseModel):
    """Name and colour of a class."""

    model_config = ConfigDict(strict=True)

    name: str
    colour: tuple[Level, Level, Level]


class About(BaseModel):
    """The content of ``carb.json``."""

    model_config = ConfigDict(strict=True)

    classes: Annotated[list[AboutClass], Field(min_length=1, max_length=255)]
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    std: tuple[Deviation, Deviation, Deviation]
    base_size: tuple[Side, Side]
    extra: dict[str, Any]
    align_corners: bool = True  # of the last upsampling: older segmenters kept smp's own
    weights_sha256: str | None = None


def known_options(model: type[nn.Module], encoder: str) -> set[str]:
    """Which options an architecture takes from ``segmenter.options``."""
    own = set(inspect.signature(model.__init__).parameters) - _OURS
    return own | (_TIMM_OPTIONS if encoder.startswith("tu-") else set())


def read_about(directory: Path) -> About:
    """Read ``carb.json`` and look through ``config.json``.

    Raises:
        ValueError: a file is missing, damaged, or asks for what this pipeline never writes.
    """
    for name in (ABOUT_FILE, CONFIG_FILE, WEIGHTS_FILE):
        if not (directory / name).is_file():
            raise ValueError(
                f"{directory} is not a segmenter of this pipeline, {name} is missing; "
                "run dvc repro train"
            )
    try:
        about = About.model_validate_json((directory / ABOUT_FILE).read_bytes())
        config = json.loads((directory / CONFIG_FILE).read_text("utf-8"))
        fault = _fault(config, len(about.classes)) or _changed(directory, about)
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        fault = f"{ABOUT_FILE}: {place} is not as it must be ({error.errors()[0]['msg']})"
    except (OSError, ValueError, RecursionError) as error:
        fault = f"{type(error).__name__}: {error_text(error)}"
    if fault:
        raise ValueError(f"{directory} is damaged, {fault}; {rebuild_hint('train')}")
    return about


def _changed(directory: Path, about: About) -> str:
    """Whether the weights are others than those that were written, in words, or nothing."""
    if about.weights_sha256 in (None, file_digest(directory / WEIGHTS_FILE)):
        return ""
    return (
        f"{WEIGHTS_FILE} is not what training wrote; if you changed it yourself, take "
        f"'weights_sha256' out of {ABOUT_FILE}"
    )


def _fault(config: Any, num_classes: int) -> str:
    """What is wrong with smp's configuration, or nothing."""
    if not isinstance(config, dict):
        return f"{CONFIG_FILE} holds {short_repr(config)}"
    known = {model.__name__: model for model in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    architecture, encoder = config.pop("_model_class", None), str(config.get("encoder_name"))
    if not isinstance(architecture, str) or architecture not in known:
        return f"{CONFIG_FILE} names the architecture {short_repr(architecture)}, which smp lacks"
    try:
        check_encoder(encoder)
    except ValueError:
        return f"{CONFIG_FILE} names the encoder {short_repr(encoder)}, which smp and timm lack"
    if config.get("classes") != num_classes:
        found = short_repr(config.get("classes"))
        return f"{ABOUT_FILE} names {num_classes} classes and {CONFIG_FILE} {found}"
    for name, value in config.items():
        if name not in known_options(known[architecture], encoder) | _OURS - {"kwargs", "self"}:
            return (
                f"{CONFIG_FILE} has the entry {short_repr(name)}, which this pipeline never writes"
            )
        if name in _FIXED and value != _FIXED[name]:
            return (
                f"{CONFIG_FILE} has {name} {short_repr(value)} and not {short_repr(_FIXED[name])}"
            )
    return ""
