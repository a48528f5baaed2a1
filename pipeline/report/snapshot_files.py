"""Snapshots of a training: table and chart of their mIoU, and the one that is evaluated."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from pipeline.config.eval import EvalParams
from pipeline.datasets.base import Scene
from pipeline.evaluation.segmenter import Metrics
from pipeline.evaluation.snapshots import (
    Snapshot,
    choose,
    described,
    score_snapshots,
    snapshot_folders,
)
from pipeline.report.charts import step_chart
from pipeline.report.segmenter_panels import PanelInputs
from pipeline.segmenter.saved import load_segmenter
from pipeline.system.files import write_table

log = logging.getLogger("carb")
TABLE, CHART = "snapshots.csv", "snapshots.png"


def evaluated_network(
    folder: Path, model: Path, scenes: Sequence[Scene], inputs: PanelInputs, options: EvalParams
) -> tuple[PanelInputs, Metrics]:
    """Score the snapshots, draw their mIoU, and choose the network by ``eval.weights``.

    Args:
        folder: for ``snapshots.csv`` and ``snapshots.png``.
        model: folder of the segmenter and its snapshots.
        scenes: images with human masks; without any, the last network is evaluated.
        inputs: with the last network.
        options: section ``eval`` of params.yaml.

    Returns:
        the inputs with the chosen network, and what the metrics say about the choice; empty
        without snapshots.
    """
    if not scenes or not snapshot_folders(model):
        if options.weights == "best":
            log.warning(
                "params.yaml: eval.weights: best needs %s; the last network is evaluated",
                "train.snapshots of 1 or more" if scenes else "human masks of validation photos",
            )
        return inputs, {}
    found = score_snapshots(
        model,
        inputs.segmenter,
        scenes,
        read_mask=inputs.read_mask,
        test_time=inputs.test_time,
    )
    chosen, about = choose(found, options.weights), described(found, options.weights)
    write_scores(folder, {one.step: one.miou for one in found})
    _draw(folder / CHART, found, chosen)
    log.info("eval.weights is %s: %s; %s", options.weights, about["choice"], chosen.folder)
    if chosen.folder != model:
        inputs = inputs._replace(segmenter=load_segmenter(chosen.folder))
    return inputs, about | {"sha256": inputs.segmenter.digest}


def write_scores(folder: Path, miou: Mapping[int, float]) -> None:
    """Write the mIoU by step as ``snapshots.csv``."""
    write_table(folder / TABLE, [{"step": step, "mIoU": value} for step, value in miou.items()])


def _draw(path: Path, found: Sequence[Snapshot], chosen: Snapshot) -> None:
    curve = np.array([(one.step, 100 * one.miou) for one in found], np.float64)
    step_chart(curve, path, label="mIoU in %", mark=(chosen.step, "evaluated"))
