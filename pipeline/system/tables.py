"""Small tables on disk, read by `dvc plots`: rows as CSV, and the curves that DVCLive writes."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.system.files import atomic_path


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as CSV, whole or not at all; the keys of the first row are the header."""
    with atomic_path(path) as draft, draft.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_table(path: Path) -> list[dict[str, str]]:
    """Rows of a CSV that `write_table` wrote."""
    with path.open(newline="", encoding="utf-8") as handle:
        return list(csv.DictReader(handle))


def read_curve(path: Path) -> npt.NDArray[np.float64]:
    """A curve of DVCLive: ``[n, 2]`` of step and value."""
    with path.open(newline="", encoding="utf-8") as handle:
        rows = list(csv.reader(handle, delimiter="\t"))[1:]
    return np.array(rows, dtype=np.float64).reshape(-1, 2)
