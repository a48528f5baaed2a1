"""Checks that a store fits params.yaml, its photos, and the code that would compute it today.

Code is compared by probe logits, those of a drawn image (see `pipeline.clip.levels`). A store keeps
them in ``finished/probe.json``, by level; whatever else was probed has a name that no level has. A
store written before there were probes has none and is used as it is.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.config.clip import ClipParams
from pipeline.guided_filter import FILTER_VERSION
from pipeline.scenes.classes import LabelSpace
from pipeline.store.plan import FINISHED, FUSED, Plan
from pipeline.store.reader import PseudoMaskStore

REPAIR_VERSION = 2  # raise it when clip.last_block.repair_outliers gives other tokens
PROBE_FILE = f"{FINISHED}/probe.json"
# On the demo's CLIP two float32 kernels differ by 1e-6, a value path changed by 1 % by 4e-3.
TOLERANCE = 1e-4
DIGITS = 6  # decimals
LATER = ("window_share", "brightness")  # not in the recipe where unset, as in older stores
Probe = Mapping[str, np.ndarray]


def clip_settings(params: ClipParams, words: list[list[str]]) -> dict[str, Any]:
    """The part of a store's recipe that params.yaml alone determines."""
    settings = {
        "dense": params.dense,
        "repair_outliers": params.repair_outliers and {"maths": REPAIR_VERSION},
        "templates": params.templates,
        "words": words,
        "normalisation": params.normalisation,
        "activation": params.activation,
        "levels": {name: level.model_dump(mode="json") for name, level in params.levels.items()},
        "fused": params.fused and params.fused.model_dump(mode="json") | {"maths": FILTER_VERSION},
    }
    return settings | {name: value for name in LATER if (value := getattr(params, name))}


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
    wanted = clip_settings(params, label_space.words(params.class_prompts))
    for name in dict.fromkeys([*wanted, *LATER]):
        if recipe.get(name) != wanted.get(name):
            parameter = "class_prompts" if name == "words" else name
            raise ValueError(
                f"{store.path} was written for another clip.{parameter} than params.yaml has; "
                "run `dvc repro pseudo`"
            )


def check_photos(store: PseudoMaskStore, digests: Mapping[str, str]) -> None:
    """Refuse a store whose logits are of photos that have changed since.

    Args:
        store: the cached logits; photos that it lacks are ignored.
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


def same_recipe(previous: PseudoMaskStore, plan: Plan, level: str) -> bool:
    """Whether a store's logits of a level have the recipe of a plan."""
    return _level_recipe(previous.attributes["recipe"], level) == _level_recipe(plan.recipe, level)


def _level_recipe(recipe: dict[str, Any], level: str) -> dict[str, Any]:
    """What determines the logits of one level; other levels affect only the fused one."""
    if level == FUSED:
        return recipe
    return {**recipe, "levels": recipe.get("levels", {}).get(level), "fused": None}


def other_code(previous: PseudoMaskStore, plan: Plan, probe: Probe) -> dict[str, float]:
    """Levels at which a store's probe differs from that of today's code, and by how much.

    Levels of another recipe are not compared: their logits are not reused anyway.
    """
    other = {level for level in plan.grids if not same_recipe(previous, plan, level)}
    compared = {name: grid for name, grid in probe.items() if name not in other}
    return differences(read_probe(previous.path), compared) if other < set(plan.grids) else {}


def write_probe(store: Path, probe: Probe) -> None:
    """Write probe logits into a store."""
    content = {name: np.round(grid.astype(float), DIGITS).tolist() for name, grid in probe.items()}
    (store / FINISHED).mkdir(exist_ok=True)
    (store / PROBE_FILE).write_text(json.dumps(content) + "\n", "utf-8")


def read_probe(store: Path) -> dict[str, np.ndarray]:
    """The probe logits of a store; none if it was written before there were probes."""
    if not (store / PROBE_FILE).is_file():
        return {}
    content: dict[str, Any] = json.loads((store / PROBE_FILE).read_text("utf-8"))
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
