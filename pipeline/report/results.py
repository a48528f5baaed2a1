"""Results of a run: metrics, tables and curves of all stages, and the summary on the terminal.

Missing results are empty, such as metrics of a data set without human masks.
"""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.table import Table

from pipeline.config.carb import CarbParams
from pipeline.scenes.index import SceneIndex

Metrics = dict[str, Any]
Curve = npt.NDArray[np.float64]
LAST = "models/segmenter"
PREDICT = "carb predict DIR"
NEXT = {
    "segment photos": PREDICT,
    "change one value": "dvc exp run -S carb.tau=0.5",
    "compare runs": "dvc exp show",
}


@dataclass(frozen=True)
class RunResults:
    """The results of a run.

    Attributes:
        folder: the folder of results.
        index: the images and classes.
        frequency: one row per class: how many training images contain it.
        segmenter: ``metrics.json`` of stage eval.
        pseudo: ``metrics.json`` of stage eval_pseudo, by split and level.
        per_class: one row per class: metrics of the segmenter.
        curves: training curves by name, ``[n, 2]`` of step and value.
        missing: ``missing_classes.json`` of stage train: classes that training lost.
    """

    folder: Path
    index: SceneIndex
    frequency: list[dict[str, str]]
    segmenter: Metrics
    pseudo: Metrics
    per_class: list[dict[str, str]]
    curves: dict[str, Curve]
    missing: Metrics

    @classmethod
    def read(cls, folder: Path, index: Path) -> "RunResults":
        """Read the results that exist.

        Raises:
            ValueError: the index is missing, or a file is damaged.
        """
        curves = sorted((folder / "train/plots/metrics").glob("*.tsv"))
        return cls(
            folder=folder,
            index=SceneIndex.read(index),
            frequency=read_table(folder / "prepare/image_labels.csv"),
            segmenter=_read_metrics(folder / "eval/metrics.json"),
            pseudo=_read_metrics(folder / "eval_pseudo/metrics.json"),
            per_class=read_table(folder / "eval/per_class.csv"),
            curves={path.stem: read_curve(path) for path in curves},
            missing=_read_metrics(folder / "train/missing_classes.json"),
        )

    def levels(self, split: str) -> dict[str, Metrics]:
        """Metrics of the pseudo-masks of a split, by level; empty if it has no human masks."""
        levels = self.pseudo.get(split, {}).items()
        return {name: metrics for name, metrics in levels if metrics.get("mIoU") is not None}

    def best_level(self, split: str = "val") -> str | None:
        """The level of the most accurate pseudo-masks; None if none was scored."""
        levels = self.levels(split)
        return max(levels, key=lambda name: float(levels[name]["mIoU"]), default=None)


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV that has a header; empty if the file is missing."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def read_curve(path: Path) -> Curve:
    """A curve that training wrote: ``[n, 2]`` of step and value."""
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.reader(handle, delimiter="\t"))[1:]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)


def _read_metrics(path: Path) -> Metrics:
    """A JSON object; empty if the file is missing."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError:
        raise ValueError(
            f"{path}: not valid JSON; run `dvc repro --force {path.parent.name}`"
        ) from None
    assert isinstance(content, dict), path
    return content


def percent(value: float | str | None) -> str:
    """A fraction of 1 in percent; a dash for a missing value or NaN."""
    number = math.nan if value in (None, "") else float(str(value))
    return "-" if math.isnan(number) else f"{100 * number:.1f}"


def outputs_of(results: RunResults) -> list[tuple[str, str]]:
    """Description and path of each output that exists, relative to the project's folder."""
    folder = results.folder
    folders = {
        "segmenter: panels, metrics": folder / "eval",
        "pseudo-masks: panels, metrics": folder / "eval_pseudo",
        "training: curves": folder / "train/plots",
        "data: photos, classes, sizes": folder / "prepare",
    }
    return [
        ("report, one file", (folder / "report.html").as_posix()),
        ("segmenter, opens with smp", evaluated_folder(results)),
        *((what, path.as_posix()) for what, path in folders.items() if path.is_dir()),
    ]


def evaluated_folder(results: RunResults) -> str:
    """Folder of the segmenter that the metrics are of."""
    return str(results.segmenter.get("network", {}).get("folder", LAST))


def main_metrics(results: RunResults) -> dict[str, str]:
    """mIoU of pseudo-masks and segmenter, and pixel accuracy of the segmenter, in percent."""
    found = {}
    for split in ("train", "val"):
        level = results.best_level(split)
        if level is not None:
            value = percent(results.levels(split)[level]["mIoU"])
            found[f"mIoU, pseudo-masks, {split}"] = f"{value} % ({level} level)"
    if results.segmenter:
        found["mIoU, segmenter, val"] = f"{percent(results.segmenter['mIoU'])} %"
        accuracy = percent(results.segmenter["pixel accuracy"])
        found["pixel accuracy, segmenter, val"] = f"{accuracy} %"
    return found


def print_summary(results: RunResults, console: Console, *, carb: CarbParams, steps: int) -> None:
    """Print the summary of a run: metrics, output paths, next commands.

    Args:
        results: of the run.
        console: to print to.
        carb: section ``carb`` of params.yaml.
        steps: of the training.
    """
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    metrics = main_metrics(results) or {"metrics": "none: no photo has a human mask"}
    if carb.enabled and not carb.active_steps(steps):
        metrics["CARB"] = carb.acted(steps)
    if results.missing.get("classes"):
        metrics["missing classes"] = ", ".join(results.missing["classes"])
    following = dict(NEXT)
    if (folder := evaluated_folder(results)) != LAST:
        following |= {"segment photos": f"{PREDICT} --model {folder}"}
    for title, rows in (
        (f"Results on '{results.index.label_space.name}'", [*metrics.items()]),
        ("Output", [*outputs_of(results)]),
        ("Next", [*following.items()]),
    ):
        table.add_row(title, "", style="bold")
        for what, value in rows:
            table.add_row(f"  {what}", value)
        table.add_row()
    console.print(table)
