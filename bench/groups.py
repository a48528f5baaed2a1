"""Groups of validation images that an ablation scores apart, and images that show each setting."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pipeline.config.base import load_sections
from pipeline.config.eval import EvaluationSettings
from pipeline.datasets import open_dataset
from pipeline.datasets.base import Scene, read_annotated, read_scene_mask
from pipeline.evaluation.selection import annotated, inference_options, listed, scenes_of
from pipeline.metrics import confusion, mean_iou
from pipeline.report.drawing import colour_mask
from pipeline.report.panels import (
    PanelRow,
    class_entries,
    downscale_for_panel,
    evenly_spaced,
    panel,
)
from pipeline.scenes.image_io import read_image
from pipeline.segmenter.inference import predict_stream
from pipeline.segmenter.saved import load_segmenter
from pipeline.system.files import write_json

SHOWN = 6  # images in the panel
DARK, BRIGHT = "darkest third", "brightest third"
SCORES, MASKS = "groups.json", "shown"  # in the folder of a run


def groups_of(params: Path, lists: Mapping[str, Path]) -> dict[str, list[str]]:
    """Keys of the validation images in each group: given lists, and two by mean brightness.

    Args:
        params: the parameter file.
        lists: name of a group -> file with one key per line, as ``eval.photos``.
    """
    scenes = _scenes(load_sections(params, EvaluationSettings))
    groups = {name: [scene.key for scene in listed(scenes, path)] for name, path in lists.items()}
    bright = sorted(scenes, key=lambda scene: np.asarray(read_image(scene.image)).mean())
    third = len(scenes) // 3
    thirds = {DARK: bright[:third], BRIGHT: bright[len(bright) - third :]}
    return groups | {name: [scene.key for scene in some] for name, some in thirds.items() if some}


def score_groups(run: Path, groups: Mapping[str, Sequence[str]]) -> None:
    """Predict all validation images: mIoU of each group to `SCORES`, some masks to `MASKS`.

    Args:
        run: folder of a run, with ``params.yaml`` and ``model``.
        groups: from `groups_of`.
    """
    settings, segmenter = (
        load_sections(run / "params.yaml", EvaluationSettings),
        load_segmenter(run / "model"),
    )
    scenes = _scenes(settings)
    read_mask = open_dataset(settings.dataset.name, settings.dataset.root).read_mask
    shown = {scene.key for scene in evenly_spaced(scenes, SHOWN)}
    items = ((scene.key, *read_annotated(scene, read_mask)) for scene in scenes)
    matrices = {}
    (run / MASKS).mkdir(exist_ok=True)
    for key, _, mask, (classes, *_) in predict_stream(
        segmenter, items, test_time=inference_options(settings.eval), more=lambda key, logits: []
    ):
        matrices[key] = confusion(classes, mask, len(segmenter.classes))
        if key in shown:
            Image.fromarray(classes).save(run / MASKS / _file(key))
    scores = {
        name: mean_iou(np.sum([matrices[key] for key in keys], axis=0))
        for name, keys in groups.items()
    }
    write_json(run / SCORES, scores)


def read_scores(run: Path) -> dict[str, float]:
    """mIoU of each group, 0 to 1."""
    return dict(json.loads((run / SCORES).read_text("utf-8")))


def settings_panel(params: Path, runs: Mapping[str, Path]) -> Image.Image:
    """A panel of `SHOWN` images: one column per setting, its first seed, then the human mask.

    Args:
        params: the parameter file.
        runs: name of a setting -> folder of its run.
    """
    settings = load_sections(params, EvaluationSettings)
    dataset = open_dataset(settings.dataset.name, settings.dataset.root)
    palette = dataset.label_space.palette
    rows = []
    for scene in evenly_spaced(_scenes(settings), SHOWN):
        image, by = downscale_for_panel(read_image(scene.image))
        masks = [np.asarray(Image.open(run / MASKS / _file(scene.key))) for run in runs.values()]
        masks.append(read_scene_mask(scene, dataset.read_mask))
        cells = [colour_mask(mask[::by, ::by], palette) for mask in masks]
        rows.append(PanelRow([image, *cells], scene.key))
    legend = [class_entries(dataset.label_space.names, palette)]
    return panel(rows, titles=["photo", *runs, "human mask"], legend=legend)


def _scenes(settings: EvaluationSettings) -> list[Scene]:
    """The validation images with human masks."""
    dataset = open_dataset(settings.dataset.name, settings.dataset.root)
    return annotated(scenes_of(dataset, "val"))


def _file(key: str) -> str:
    return f"{key.replace('/', '_')}.png"
