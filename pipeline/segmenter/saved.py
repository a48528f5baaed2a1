"""Saved segmenter: a folder that plain ``smp.from_pretrained`` opens, checked before loading.

``carb.json`` next to the weights contains what smp does not keep: classes, colours, normalisation
and size. Users pass such folders on, so every file is checked before a library acts on it: smp
would import a class of any name from the configuration, and timm download any encoder.
"""

import io
import json
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
import segmentation_models_pytorch as smp
import torch
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError
from safetensors import SafetensorError
from torch import nn

from pipeline.segmenter.encoder import check_encoder
from pipeline.segmenter.inference import Segmenter, check_ensemble
from pipeline.segmenter.network import (
    LIBRARY_ERRORS,
    RESERVED_ARGUMENTS,
    known_options,
    plain_network,
    size_divisor,
    with_own_upsampling,
)
from pipeline.system.devices import best_device
from pipeline.system.files import atomic_path, file_digest, write_json
from pipeline.system.text import error_text, rebuild_hint, short_repr

METADATA_FILE, CONFIG_FILE, WEIGHTS_FILE = "carb.json", "config.json", "model.safetensors"
SNAPSHOTS = "snapshots"  # folder in a segmenter's folder: earlier networks of the same training
_FIXED = {"in_channels": 3, "activation": None, "aux_params": None}
ColourValue = Annotated[int, Field(ge=0, le=255)]
Side = Annotated[int, Field(gt=0, le=2**15)]  # as in params.yaml
Deviation = Annotated[FiniteFloat, Field(gt=0)]


class ClassInfo(BaseModel):
    """Name and colour of a class."""

    model_config = ConfigDict(strict=True)

    name: str
    colour: tuple[ColourValue, ColourValue, ColourValue]


class Metadata(BaseModel):
    """The content of ``carb.json``."""

    model_config = ConfigDict(strict=True)

    classes: Annotated[list[ClassInfo], Field(min_length=1, max_length=255)]
    mean: tuple[FiniteFloat, FiniteFloat, FiniteFloat]
    std: tuple[Deviation, Deviation, Deviation]
    base_size: tuple[Side, Side]
    extra: dict[str, Any]
    align_corners: bool = True  # of the last upsampling; older segmenters used smp's
    weights_sha256: str | None = None


def save_segmenter(
    directory: Path,
    model: nn.Module,
    *,
    classes: list[str],
    palette: npt.NDArray[np.uint8],
    mean: tuple[float, ...],
    std: tuple[float, ...],
    base_size: tuple[int, int],
    extra: dict[str, Any],
) -> None:
    """Write a segmenter's folder atomically; equal input gives equal bytes.

    Args:
        directory: folder to write; an existing one is replaced.
        model: from ``build_segmenter``, on any device; it is not changed.
        classes: class names, by index.
        palette: ``[C, 3]`` uint8 RGB.
        mean: subtracted from RGB in 0..1.
        std: divides the difference.
        base_size: ``(height, width)`` in pixels of the training images.
        extra: JSON values to keep, such as the training settings.
    """
    from pipeline.segmenter.card import model_card  # its jinja2 is not needed for inference

    stride = size_divisor(model)
    pairs = zip(classes, palette.tolist(), strict=True)
    metadata = {
        "classes": [{"name": name, "colour": colour} for name, colour in pairs],
        "mean": list(mean),
        "std": list(std),
        "base_size": list(base_size),
        "stride": stride,
        "align_corners": False,
        "extra": extra,
    }
    plain: Any = plain_network(model)
    segmenter = Segmenter(plain, classes, palette, mean, std, base_size, stride, extra)
    with atomic_path(directory) as draft:
        draft.mkdir()
        # smp keeps an existing card. Its own lacks class names and states a licence.
        card = model_card(segmenter, metrics=None, onnx=False)
        (draft / "README.md").write_text(card, "utf-8")
        plain.save_pretrained(draft)
        digest = file_digest(draft / WEIGHTS_FILE)
        write_json(draft / METADATA_FILE, metadata | {"weights_sha256": digest})


def load_segmenter(directory: str | Path) -> Segmenter:
    """Load a folder of ``save_segmenter``, in eval mode, on a GPU if there is one.

    ``load_segmenter("models/segmenter")("photo.jpg")`` returns the class of each pixel, ``[H, W]``.

    Raises:
        ValueError: it is not such a folder, or a file in it is damaged.
    """
    directory = Path(directory)
    metadata = read_metadata(directory)
    try:
        with redirect_stdout(io.StringIO()):  # huggingface_hub prints the path
            # None: never download the ImageNet weights that a configuration asks for.
            model = smp.from_pretrained(str(directory), encoder_weights=None)
    except (OSError, SafetensorError, *LIBRARY_ERRORS) as error:
        raise ValueError(
            f"{directory} is damaged ({type(error).__name__}: {error_text(error)}); "
            f"{rebuild_hint('train')}"
        ) from error
    if not metadata.align_corners:
        model = with_own_upsampling(model)
    return Segmenter(
        model=model.eval().to(best_device(), memory_format=torch.channels_last),
        classes=[info.name for info in metadata.classes],
        palette=np.array([info.colour for info in metadata.classes], np.uint8),
        mean=metadata.mean,
        std=metadata.std,
        base_size=metadata.base_size,
        stride=size_divisor(model),
        extra=metadata.extra,
        digest=metadata.weights_sha256 or "",
    )


def load_ensemble(model: Path, others: Sequence[Path]) -> list[Segmenter]:
    """The segmenters of ``--model`` and of each ``--ensemble``, which must have equal classes."""
    named = [(f"--model {model}", load_segmenter(model))]
    named += [(f"--ensemble {path}", load_segmenter(path)) for path in others]
    check_ensemble(named)
    return [segmenter for _, segmenter in named]


def read_metadata(directory: Path) -> Metadata:
    """Read ``carb.json``; check ``config.json`` and the digest of the weights.

    Raises:
        ValueError: a file is missing, damaged, or has content that this pipeline never writes.
    """
    for name in (METADATA_FILE, CONFIG_FILE, WEIGHTS_FILE):
        if not (directory / name).is_file():
            raise ValueError(
                f"{directory} is not a segmenter of this pipeline, {name} is missing; "
                "run dvc repro train"
            )
    weights = directory / WEIGHTS_FILE
    try:
        metadata = Metadata.model_validate_json((directory / METADATA_FILE).read_bytes())
        config = json.loads((directory / CONFIG_FILE).read_text("utf-8"))
        fault = _config_fault(config, len(metadata.classes))
        if not fault and metadata.weights_sha256 not in (None, file_digest(weights)):
            fault = (
                f"{WEIGHTS_FILE} is not the file that training wrote; if you changed it yourself, "
                f"remove 'weights_sha256' from {METADATA_FILE}"
            )
    except ValidationError as error:
        place = ".".join(str(part) for part in error.errors()[0]["loc"])
        fault = f"{METADATA_FILE}: {place}: {error.errors()[0]['msg']}"
    except (OSError, ValueError, RecursionError) as error:
        fault = f"{type(error).__name__}: {error_text(error)}"
    if fault:
        raise ValueError(f"{directory} is damaged, {fault}; {rebuild_hint('train')}")
    return metadata


def _config_fault(config: Any, num_classes: int) -> str:
    """What is wrong with smp's configuration; empty if it is valid."""
    if not isinstance(config, dict):
        return f"{CONFIG_FILE} contains {short_repr(config)}"
    known = {model.__name__: model for model in smp.MODEL_ARCHITECTURES_MAPPING.values()}
    architecture, encoder = config.pop("_model_class", None), str(config.get("encoder_name"))
    if not isinstance(architecture, str) or architecture not in known:
        return f"{CONFIG_FILE} names the architecture {short_repr(architecture)}, unknown to smp"
    try:
        check_encoder(encoder)
    except ValueError:
        return f"{CONFIG_FILE} names the encoder {short_repr(encoder)}, unknown to smp and timm"
    if config.get("classes") != num_classes:
        found = short_repr(config.get("classes"))
        return f"{METADATA_FILE} names {num_classes} classes and {CONFIG_FILE} {found}"
    options = known_options(known[architecture], encoder) | RESERVED_ARGUMENTS - {"kwargs", "self"}
    for name, value in config.items():
        if name not in options:
            return f"{CONFIG_FILE} has {short_repr(name)}, which this pipeline never writes"
        if name in _FIXED and value != _FIXED[name]:
            fixed = short_repr(_FIXED[name])
            return f"{CONFIG_FILE}: {name} must be {fixed}, got {short_repr(value)}"
    return ""
