"""What the stages of a run left in their folders, as far as it is there: figures, tables, curves.

A data set without human masks has no figures, one without validation photos no pictures of them.
"""

import csv
import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.scenes.index import SceneIndex

Metrics = dict[str, Any]
Curve = npt.NDArray[np.float64]


def percent(value: float | str | None) -> str:
    """A fraction of 1 in percent; a dash where there is none."""
    number = math.nan if value in (None, "") else float(str(value))
    return "-" if math.isnan(number) else f"{100 * number:.1f}"


@dataclass(frozen=True)
class RunResults:
    """The results of a run.

    Attributes:
        folder: where they lie.
        index: the photos and classes.
        frequency: a row a class, how many training photos hold it; or none.
        segmenter: ``metrics.json`` of eval; empty where nothing was scored.
        pseudo: ``metrics.json`` of eval_pseudo, by split and level.
        per_class: a row a class of the segmenter's figures; or none.
        curves: of training by name, ``[n, 2]`` of step and value each.
    """

    folder: Path
    index: SceneIndex
    frequency: list[dict[str, str]]
    segmenter: Metrics
    pseudo: Metrics
    per_class: list[dict[str, str]]
    curves: dict[str, Curve]

    @classmethod
    def read(cls, folder: Path, index: Path) -> "RunResults":
        """Read what is there.

        Raises:
            ValueError: there is no index, or a file is damaged.
        """
        curves = sorted((folder / "train/plots/metrics").glob("*.tsv"))
        return cls(
            folder=folder,
            index=SceneIndex.read(index),
            frequency=_rows(folder / "prepare/image_labels.csv"),
            segmenter=_figures(folder / "eval/metrics.json"),
            pseudo=_figures(folder / "eval_pseudo/metrics.json"),
            per_class=_rows(folder / "eval/per_class.csv"),
            curves={path.stem: read_curve(path) for path in curves},
        )

    def levels(self, split: str) -> dict[str, Metrics]:
        """Figures of the pseudo-masks of a split, by level; empty where it has no human masks."""
        levels = self.pseudo.get(split, {}).items()
        return {name: figures for name, figures in levels if figures.get("mIoU") is not None}

    def best_level(self, split: str = "val") -> str | None:
        """The level of the most accurate pseudo-masks; None where none was scored."""
        levels = self.levels(split)
        return max(levels, key=lambda name: float(levels[name]["mIoU"]), default=None)

    def pictures(self, pattern: str) -> list[Path]:
        """Pictures below the folder, in order of their names."""
        return sorted(self.folder.glob(pattern))


def _figures(path: Path) -> Metrics:
    """A JSON file; empty where it is missing."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text("utf-8"))
    except ValueError:
        raise ValueError(
            f"{path}: is no JSON; run `dvc repro --force {path.parent.name}`"
        ) from None
    assert isinstance(content, dict), path
    return content


def _rows(path: Path) -> list[dict[str, str]]:
    """A table; empty where it is missing."""
    return read_table(path) if path.is_file() else []


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV that `write_table` wrote."""
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def read_curve(path: Path) -> npt.NDArray[np.float64]:
    """A curve of DVCLive: ``[n, 2]`` of step and value."""
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.reader(handle, delimiter="\t"))[1:]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)
