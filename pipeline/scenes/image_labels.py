"""The pipeline's own table of image-level labels: ``data/image_labels.csv``, 0 or 1 per class.

`pipeline.datasets.image_label_files` reads what people write.
"""

import csv
from pathlib import Path

import numpy as np

from pipeline.system.files import atomic_path
from pipeline.system.text import error_text

ImageLabels = dict[str, np.ndarray]  # key -> [C] bool


def write_image_labels(path: Path, labels: ImageLabels, classes: list[str]) -> None:
    """Write ``key,<class>,...`` with 0/1, one line per photo."""
    with atomic_path(path) as draft, draft.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["key", *classes])
        writer.writerows([key, *row.astype(int)] for key, row in labels.items())


def read_image_labels(path: Path, classes: list[str]) -> ImageLabels:
    """Read what `write_image_labels` wrote: ``[C]`` bool per key.

    Raises:
        ValueError: the file is missing, damaged, or has other classes.
    """
    remedy = "run `dvc repro prepare`"
    try:
        with path.open(newline="", encoding="utf-8") as handle:
            header, *rows = list(csv.reader(handle)) or [[]]
    except FileNotFoundError:
        raise ValueError(f"{path}: no such image-level labels; {remedy}") from None
    except (OSError, ValueError, csv.Error) as error:
        raise ValueError(f"{path}: not readable as CSV ({error_text(error)}); {remedy}") from None
    if header != ["key", *classes]:
        wanted = f"'key' and the {len(classes)} classes"
        raise ValueError(f"{path}: its columns are not {wanted}; {remedy}")
    valid = all(len(row) == len(header) and {*row[1:]} <= {"0", "1"} for row in rows)
    if not valid or len({row[0] for row in rows}) < len(rows):
        raise ValueError(f"{path}: a line is damaged or a key occurs twice; {remedy}")
    return {key: np.array([value == "1" for value in row]) for key, *row in rows}
