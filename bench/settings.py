"""What the ablations switch: names of settings, and the values of params.yaml that each changes."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

Changes = dict[str, Any]  # dotted name of a parameter -> value

# The paper's ablation: each idea alone and both, on top of plain training on CLIP's masks.
PAPER: dict[str, Changes] = {
    "global": {"carb.enabled": False, "train.local_term": False},
    "global + local": {"carb.enabled": False},
    "global + CARB": {"train.local_term": False},
    "global + local + CARB": {},
}
TABLES: dict[str, dict[str, Changes]] = {"paper": PAPER}


def write_changed(source: Path, target: Path, changes: Changes) -> None:
    """Write a parameter file with some values changed.

    Args:
        source: parameter file to start from.
        target: file to write.
        changes: dotted name -> value; a name must be there.
    """
    content = YAML(typ="safe", pure=True).load(source)
    for name, value in changes.items():
        *sections, key = name.split(".")
        section = content
        for part in sections:
            section = section[part]
        assert key in section, name
        section[key] = value
    target.parent.mkdir(parents=True, exist_ok=True)
    YAML().dump(content, target)
