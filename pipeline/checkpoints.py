"""Training state on disk: one safetensors file, whole or not there, read without unpickling."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from pipeline.files import atomic_path


@dataclass
class Progress:
    """How far a run is, and the figures it logged."""

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


def save_checkpoint(
    path: Path, *, modules: dict[str, nn.Module], optimizer: Optimizer, progress: Progress
) -> None:
    """Write modules, optimiser and progress; a write that is cut short leaves the last file."""
    tensors = {
        f"{name}.{key}": value
        for name, module in modules.items()
        for key, value in module.state_dict().items()
    } | _optimizer_tensors(optimizer)
    tensors = {key: value.detach().cpu().contiguous() for key, value in tensors.items()}
    with atomic_path(path) as draft:
        save_file(tensors, draft, metadata={"progress": json.dumps(vars(progress))})


def load_checkpoint(path: Path, *, modules: dict[str, nn.Module], optimizer: Optimizer) -> Progress:
    """Restore what `save_checkpoint` wrote.

    Raises:
        ValueError: the file is damaged or belongs to another run.
    """
    try:
        with safe_open(path, framework="pt") as handle:
            progress = Progress(**json.loads(handle.metadata()["progress"]))
            tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118
        for name, module in modules.items():
            module.load_state_dict(_below(tensors, name))
        optimizer.load_state_dict(
            {
                "state": _optimizer_state(_below(tensors, "optimizer")),
                "param_groups": optimizer.state_dict()["param_groups"],
            }
        )
    except (SafetensorError, KeyError, TypeError, RuntimeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"{path}: not a whole checkpoint of this run ({error}); delete it to start anew"
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


def seed_step(seed: int, step: int) -> None:
    """Seed what draws from torch's global stream (dropout): a resumed step draws the same."""
    torch.manual_seed(seed * 1_000_003 + step)
