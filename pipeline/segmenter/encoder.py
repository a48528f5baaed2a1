"""Encoder of the segmenter: check of its name, weights from ImageNet or a safetensors file."""

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from pipeline.system.hub import HubFile, obtain, safetensors_name
from pipeline.system.tensor_files import load_tensors, save_tensors
from pipeline.system.text import error_text, first_few


def check_encoder(name: str) -> None:
    """Raise ValueError with the closest names if neither smp nor timm has the encoder."""
    native = smp.encoders.get_encoder_names()
    if timm.is_model(name[3:]) if name.startswith("tu-") else name in native:
        return
    names = [*native, *(f"tu-{model}" for model in timm.list_models())]
    close = difflib.get_close_matches(name, names, n=3)
    hint = f"did you mean {' or '.join(close)}?" if close else "smp's documentation lists them"
    raise ValueError(
        "params.yaml: segmenter.encoder must be an encoder of smp, or tu- and the name of a timm "
        f"model, got '{name}'; {hint}"
    )


def imagenet_file(encoder: str) -> HubFile:
    """The safetensors file with an encoder's ImageNet weights.

    Raises:
        ValueError: there is none on the hub; some of timm's weights are pickles elsewhere.
    """
    check_encoder(encoder)
    if encoder.startswith("tu-"):
        config = timm.get_pretrained_cfg(encoder[3:])
        repo, _, revision = ((config and config.hf_hub_id) or "").partition("@")
        name = (config and config.hf_hub_filename) or "model.safetensors"
        file = HubFile(repo, safetensors_name(name), revision or None)
    else:
        trained = smp.encoders.encoders[encoder]["pretrained_settings"].get("imagenet", {})
        file = HubFile(trained.get("repo_id", ""), "model.safetensors", trained.get("revision"))
    if not file.repo:
        raise ValueError(
            f"params.yaml: segmenter.encoder_weights: there are no ImageNet weights of '{encoder}' "
            "as safetensors, and pickles are not read; write none, or the path of a .safetensors "
            "file"
        )
    return file


def imagenet_encoder(
    encoder: str, *, arch: str = "unet", options: Mapping[str, Any] | None = None
) -> nn.Module:
    """Build an encoder with ImageNet weights, downloaded or from the hub's cache.

    smp and timm get the file's path: they would ask the hub again, and timm may read a pickle.

    Args:
        encoder: name of an smp encoder, or ``tu-`` and the name of a timm model.
        arch: smp architecture to use it in; some use fewer of its stages.
        options: further arguments of the architecture.

    Raises:
        ValueError: the weights do not exist, cannot be downloaded or do not fit.
    """
    (path,) = obtain([imagenet_file(encoder)], "segmenter.encoder_weights")
    ours: dict[str, Any] = {**(options or {}), "encoder_weights": None}
    if encoder.startswith("tu-"):
        overlay = {"file": str(path), "custom_load": False}
        ours |= {"encoder_weights": True, "pretrained_cfg_overlay": overlay}
    try:
        model = smp.create_model(arch, encoder, **ours)
        if not encoder.startswith("tu-"):
            model.encoder.load_state_dict(load_file(path))
    except (OSError, RuntimeError, LookupError, ValueError, TypeError, SafetensorError) as error:
        raise ValueError(
            f"params.yaml: segmenter.encoder_weights: ImageNet weights of '{encoder}' cannot be "
            f"loaded from {path} ({error_text(error)}); delete the file to download it again, "
            "write none, or the path of a .safetensors file"
        ) from error
    loaded: nn.Module = model.encoder
    return loaded


def trained_with(encoder: str) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Mean and standard deviation that a timm encoder was pretrained with; None for smp's own."""
    config = timm.get_pretrained_cfg(encoder[3:]) if encoder.startswith("tu-") else None
    return (tuple(config.mean), tuple(config.std)) if config else None


def save_encoder(encoder: nn.Module, path: Path, *, half: bool) -> None:
    """Write an encoder's weights atomically as safetensors.

    Args:
        encoder: the ``encoder`` of an smp model.
        path: file to write.
        half: store matrices as float16; vectors (biases, statistics) may exceed its range.
    """
    state = {}
    for name, value in encoder.state_dict().items():
        small = half and value.ndim > 1 and value.is_floating_point()
        state[name] = value.to(torch.float16 if small else value.dtype)
    save_tensors(path, state, {})


def load_encoder(model: nn.Module, path: Path) -> None:
    """Load weights into a model's encoder; names and shapes must match.

    Args:
        model: an smp model; its ``encoder`` is changed.
        path: safetensors file of the encoder's ``state_dict``, float16 or float32.

    Raises:
        ValueError: the file is missing, not safetensors, or from another encoder.
    """
    encoder = model.encoder
    assert isinstance(encoder, nn.Module)
    try:
        found, _ = load_tensors(path, require_digest=False)
    except (OSError, SafetensorError) as error:
        raise ValueError(
            f"params.yaml: segmenter.encoder_weights: {path} cannot be read as safetensors "
            f"({error_text(error)}); make the file again, or name another"
        ) from error
    wanted = encoder.state_dict()
    if differences := state_differences(found, wanted):
        raise ValueError(
            f"params.yaml: segmenter.encoder_weights: {path} does not fit segmenter.encoder: "
            f"{differences}; name a file for this encoder"
        )
    encoder.load_state_dict({name: found[name].to(wanted[name].dtype) for name in wanted})


def state_differences(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> str:
    """How two state dicts differ, with the first names of each kind; empty if they do not."""
    kinds = {
        "missing": [name for name in wanted if name not in found],
        "unknown": [name for name in sorted(found) if name not in wanted],
        "of another shape": [
            f"{name} {list(found[name].shape)} instead of {list(value.shape)}"
            for name, value in wanted.items()
            if name in found and found[name].shape != value.shape
        ],
    }
    return "; ".join(
        f"{len(names)} {kind} ({first_few(names, 3)})" for kind, names in kinds.items() if names
    )
