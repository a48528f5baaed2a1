"""Small tables on disk, read by `dvc plots`."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline.files import atomic_path


def write_table(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Write rows as CSV, whole or not at all; the keys of the first row are the header."""
    with atomic_path(path) as draft, draft.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.DictWriter(handle, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
