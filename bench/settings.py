"""Settings of the ablations: the parameters that each one changes."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.config.params import load_params

Changes = dict[str, Any]  # dotted name of a parameter -> value
LABEL_NOISE = "label noise"  # not a parameter: rates for `bench.label_noise.write_noisy`
HUMAN_MASKS = "human masks"  # not a parameter: train on these, see `bench.human_masks`

# The paper's ablation (of recipes/demo-paper.yaml or camvid.yaml): plain training on CLIP's masks,
# plus each idea, plus both.
PAPER: dict[str, Changes] = {
    "global": {"carb.enabled": False, "train.local_term": False},
    "global + local": {"carb.enabled": False},
    "global + CARB": {"train.local_term": False},
    "global + local + CARB": {},
}
_WINDOW = {"window": [64, 64], "overlap": 0.5}  # of the demo's CLIP
# recipes/demo-paper.yaml with one idea removed or changed.
SWITCHES: dict[str, Changes] = {
    "as it is": {},
    "no image labels": {LABEL_NOISE: {"false_alarm": 1.0}},
    "image labels miss 20 %": {LABEL_NOISE: {"miss": 0.2}},
    "image labels alarm 20 %": {LABEL_NOISE: {"false_alarm": 0.2}},
    "no warm-up": {"carb.warmup_steps": 0, "carb.warmup_share": None},
    "lambda 0.03": {"carb.weight": 0.03},
    "lambda 1": {"carb.weight": 1.0},
    "tau 0.5": {"carb.tau": 0.5},
    "no class weights": {"train.class_weight_power": 0.0},
    "text classifier": {
        "segmenter.classifier": "text",
        "segmenter.options": {"decoder_channels": [96, 64, 32, 16, 128]},  # as wide as the text
    },
    "one sentence a class": {"clip.templates": "plain"},
    "local zooms 1.5 and 2": {
        "clip.levels": {
            "global": {"zoom": 1.0, **_WINDOW},
            "near": {"zoom": 1.5, **_WINDOW},
            "local": {"zoom": 2.0, **_WINDOW},
        }
    },
    "ImageNet's normalisation": {"clip.normalisation": "imagenet"},
    "another GELU": {"clip.activation": "quick_gelu"},
}
# params.yaml or an improved recipe with one idea removed or added.
BEST: dict[str, Changes] = {
    "as it is": {},
    "without CARB": {"carb.enabled": False},
    "with the local term": {"train.local_term": True},
    "without Dice loss": {"train.dice_weight": 0.0},
    "without presence loss": {"train.presence_weight": 0.0},
    "with hard pseudo-masks": {"train.label_temperature": 0.0},
    "without window embeddings": {"clip.window_share": 0.0},
}
# What the recipe would reach with perfect pseudo-masks, which need no correction.
_ON_HUMAN_MASKS = {
    HUMAN_MASKS: True,
    "carb.enabled": False,
    "train.local_term": False,
    "train.label_temperature": 0.0,
}
BOUND: dict[str, Changes] = {"as it is": {}, HUMAN_MASKS: _ON_HUMAN_MASKS}
TABLES = {"paper": PAPER, "switches": SWITCHES, "best": BEST, "bound": BOUND}
NO_PARAMETERS = (LABEL_NOISE, HUMAN_MASKS)

# Parameters that a comparison takes from the base: data, weights, machine.
_OWN = {
    "seed",
    "dataset",
    "clip.model",
    "clip.pretrained",
    "segmenter.encoder_weights",
    "train.workers",
    "eval.photos",
}
# Parameters that distilled encoder weights depend on.
_ENCODER = (
    "clip.levels",
    "clip.dense",
    "clip.repair_outliers",
    "clip.window_share",
    "clip.brightness",
    "views",
    "augment",
    "segmenter",
    "distillation",
)


def recipe_changes(recipe: Path, base: Path) -> Changes:
    """Parameters that a recipe changes; data, weights and seed excluded.

    Args:
        recipe: a complete parameter file.
        base: the parameter file to compare with.

    Raises:
        ValueError: the recipe needs other initial encoder weights than the base.
    """
    wanted, known = (load_params(path).model_dump(mode="json") for path in (recipe, base))
    changes = {
        f"{section}.{key}": value
        for section, values in wanted.items()
        if section not in _OWN
        for key, value in values.items()
        if f"{section}.{key}" not in _OWN and value != known[section][key]
    }
    other = [name for name in changes if name.startswith(_ENCODER)]
    if known["segmenter"]["encoder_weights"] == "clip" and other:
        raise ValueError(
            f"{recipe}: changes {other[0]}, which the encoder of {base} was trained with; run both "
            "with `dvc repro` instead"
        )
    return changes


def write_changed(source: Path, target: Path, changes: Changes) -> None:
    """Write a parameter file with some values changed.

    Args:
        source: parameter file to start from.
        target: file to write.
        changes: dotted name -> value; the names must exist.
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
