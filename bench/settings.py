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
# One idea less, or done as the authors' code does it, each from the parameters as they stand.
SWITCHES: dict[str, Changes] = {
    "as it is": {},
    "no image labels": {"dataset.label_noise.false_alarm": 1.0},
    "labels miss 20 %": {"dataset.label_noise.miss": 0.2},
    "lambda fixed at 0.03": {"carb.weight": 0.03},
    "lambda fixed at 1": {"carb.weight": 1.0},
    "no warm-up": {"carb.warmup_steps": 0},
    "text classifier": {"segmenter.classifier": "text"},
    "one sentence a class": {"clip.templates": "plain"},
    "CLIP sees ImageNet's normalisation": {"clip.normalisation": "imagenet"},
    "CLIP with another GELU": {"clip.activation": "quick_gelu"},
}
TABLES: dict[str, dict[str, Changes]] = {"paper": PAPER, "switches": SWITCHES}


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
