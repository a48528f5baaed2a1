"""Named tensors in one safetensors file with a digest, because safetensors detects no bit flips."""

import hashlib
import json
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from pipeline.system.files import atomic_path, check_room

_ENTRY = "carb"  # the only entry of the header: safetensors writes several in any order
_DIGEST = "sha256"


def _digest(tensors: dict[str, Tensor], notes: dict[str, str]) -> str:
    """SHA-256 of names, types, shapes, values and notes."""
    total = hashlib.sha256(json.dumps(notes, sort_keys=True).encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        total.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        total.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def num_bytes(tensors: dict[str, Tensor]) -> int:
    """Size of the values of tensors, in bytes."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())


def save_tensors(path: Path, tensors: dict[str, Tensor], notes: dict[str, str]) -> None:
    """Write tensors of any device by name, with notes, atomically.

    Raises:
        ValueError: there is not enough disk space.
    """
    here = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    check_room({path: num_bytes(here)})
    entry = json.dumps(notes | {_DIGEST: _digest(here, notes)})
    with atomic_path(path) as draft:
        save_file(here, draft, metadata={_ENTRY: entry})


def load_tensors(path: Path, *, require_digest: bool) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read a file's tensors and notes, and compare them with their digest.

    Args:
        path: file to read.
        require_digest: refuse files without digest, which `save_tensors` did not write.

    Raises:
        SafetensorError: the file is not a safetensors file, or damaged.
        OSError: it cannot be read.
    """
    with safe_open(path, framework="pt") as handle:
        entry = (handle.metadata() or {}).get(_ENTRY, "{}")
        tensors = {name: handle.get_tensor(name) for name in handle.keys()}  # noqa: SIM118
    try:
        notes = {str(name): str(text) for name, text in json.loads(entry).items()}
    except (ValueError, AttributeError) as error:
        raise SafetensorError(f"its header is damaged: {error}") from None
    digest = notes.pop(_DIGEST, None)
    if (require_digest or digest is not None) and digest != _digest(tensors, notes):
        raise SafetensorError("its values are not those that were written")
    return tensors, notes
