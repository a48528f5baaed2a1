"""Probe logits: those of a drawn image, kept in the store to detect code that computes others.

They are in ``finished/probe.json``, by level; anything else that was probed has a name that no
level has. A store of earlier versions has none and is used as it is.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

FILE = "finished/probe.json"
# On the demo's CLIP two float32 kernels differ by 1e-6, a value path changed by 1 % by 4e-3.
TOLERANCE = 1e-4
DIGITS = 6  # decimals
Probe = Mapping[str, np.ndarray]


def write_probe(store: Path, probe: Probe) -> None:
    """Write probe logits into a store."""
    content = {name: np.round(grid.astype(float), DIGITS).tolist() for name, grid in probe.items()}
    (store / FILE).parent.mkdir(exist_ok=True)
    (store / FILE).write_text(json.dumps(content) + "\n", "utf-8")


def read_probe(store: Path) -> dict[str, np.ndarray]:
    """The probe logits of a store; none if it was written before there were probes."""
    if not (store / FILE).is_file():
        return {}
    content: dict[str, Any] = json.loads((store / FILE).read_text("utf-8"))
    return {name: np.array(grid, dtype=float) for name, grid in content.items()}


def differences(old: Probe, new: Probe) -> dict[str, float]:
    """The largest difference at each level where two probes differ by more than the tolerance.

    Args:
        old: what a store holds.
        new: what today's code gives; names that only one of them has are ignored.
    """
    found = {}
    for name in (name for name in new if name in old):
        same_shape = old[name].shape == new[name].shape
        most = float(np.abs(old[name] - new[name]).max()) if same_shape else np.inf
        if not most <= TOLERANCE:  # also NaN
            found[name] = most
    return found
