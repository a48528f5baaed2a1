"""Thresholds for proposed labels, compared with known answers."""

import numpy as np
import pytest

from bench.proposals import fitted, mixture, otsu, table

LOW, HIGH = np.linspace(0.05, 0.2, 30), np.linspace(0.7, 0.95, 10)
BOTH = np.concatenate([HIGH, LOW])


def test_thresholds_separate_two_groups() -> None:
    assert otsu(BOTH) == pytest.approx(0.45)
    assert mixture(BOTH) == pytest.approx(0.7)
    assert fitted(BOTH, BOTH > 0.8) == BOTH[BOTH > 0.8].min()


def test_the_table_counts_named_and_wrong_labels() -> None:
    confidence = np.array([[0.9, 0.4], [0.3, 0.6], [0.6, 0.1], [0.1, 0.2]])
    labels = np.array([[1, 1], [0, 1], [1, 0], [0, 0]], dtype=bool)
    rows = {line.split(" | ")[0]: line for line in table(confidence, labels).splitlines()}
    assert rows["| all classes in every photo"].startswith(
        "| all classes in every photo | 66.7 | 2.00 | 1.00 |"
    )
    # One of 8 labels is wrong: the photo with 0.4, the second highest and the most doubtful.
    assert rows["| 0.5 (default)"] == "| 0.5 (default) | 85.7 | 0.75 | 0.25 | 100 % | 0 % |"
