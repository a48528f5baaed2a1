"""Checkpoints: training state in one safetensors file, written atomically."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.system.tensor_files import load_tensors, num_bytes, save_tensors


class DamagedError(ValueError):
    """A checkpoint file is damaged."""


@dataclass
class Progress:
    """Steps done, and the metrics that were logged."""

    step: int
    history: list[dict[str, float]]


def _optimizer_tensors(optimizer: Optimizer) -> dict[str, Tensor]:
    state: dict[int, dict[str, Tensor | None]] = optimizer.state_dict()["state"]
    return {
        f"optimizer.{index}.{name}": value
        for index, values in state.items()
        for name, value in values.items()
        if value is not None
    }


def _module_tensors(modules: Mapping[str, nn.Module]) -> dict[str, Tensor]:
    return {
        f"{name}.{key}": value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    }


def checkpoint_bytes(model: nn.Module, optimizer: str) -> int:
    """Disk space for two checkpoints: the last one is kept until the next one is written."""
    slots = {"sgd": 1, "adamw": 2}[optimizer]  # numbers per weight
    return 2 * (num_bytes(model.state_dict()) + slots * num_bytes(dict(model.named_parameters())))


def save_checkpoint(
    path: Path, *, modules: dict[str, nn.Module], optimizer: Optimizer, progress: Progress
) -> None:
    """Write modules, optimiser and progress; an interrupted write leaves the last file."""
    tensors = _module_tensors(modules) | _optimizer_tensors(optimizer)
    save_tensors(path, tensors, {"progress": json.dumps(vars(progress))})


def load_checkpoint(path: Path, *, modules: dict[str, nn.Module], optimizer: Optimizer) -> Progress:
    """Restore what `save_checkpoint` wrote.

    Raises:
        DamagedError: the file is damaged; nothing has been restored.
        ValueError: it belongs to another run.
    """
    try:
        tensors, notes = load_tensors(path, require_digest=True)
        progress = Progress(**json.loads(notes["progress"]))
    except (SafetensorError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise DamagedError(f"{path}: not a complete checkpoint ({error})") from None
    try:
        for name, module in modules.items():
            module.load_state_dict(_below(tensors, name))
        optimizer.load_state_dict(
            {
                "state": _optimizer_state(_below(tensors, "optimizer")),
                "param_groups": optimizer.state_dict()["param_groups"],
            }
        )
    except (KeyError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"{path}: not a checkpoint of this run ({error}); delete it to start anew"
        ) from None
    return progress


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    start = f"{prefix}."
    return {key[len(start) :]: value for key, value in tensors.items() if key.startswith(start)}


def _optimizer_state(tensors: dict[str, Tensor]) -> dict[int, dict[str, Any]]:
    state: dict[int, dict[str, Any]] = {}
    for key, value in tensors.items():
        index, name = key.split(".", 1)
        state.setdefault(int(index), {})[name] = value
    return state


def seed_step(seed: int, step: int, rank: int = 0) -> None:
    """Seed torch's global generator (dropout) by step and process, so that resuming is exact."""
    torch.manual_seed((seed + 7919 * rank) * 1_000_003 + step)
