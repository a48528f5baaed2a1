"""Spread over the seeds of DVC's experiments, by hand."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.spread import app


def told(tau: Any, seed: int, value: float, **other: Any) -> dict[str, Any]:
    """A run as `dvc exp show --json` tells it."""
    params = {"seed": seed, "carb": {"tau": tau, "weight": None}, **other}
    data = {
        "params": {"params.yaml": {"data": params}},
        "metrics": {"results/segmenter.json": {"data": {"mIoU": value, "pixel accuracy": 0.5}}},
        "deps": {
            "pipeline/carb.py": {"hash": "1"},
            "pipeline/clip": {"hash": "1.dir"},
            "models/segmenter": {"hash": str(value)},
        },
    }
    return {"rev": "0123456789", "name": f"run-{seed}", "data": data, "experiments": None}


def experiment(run: dict[str, Any], state: str = "success") -> dict[str, Any]:
    return {"revs": [run], "executor": {"state": state}, "name": run["name"]}


def spread(shown: list[dict[str, Any]]) -> list[str]:
    result = CliRunner().invoke(app, input=json.dumps(shown))
    assert result.exit_code == 0, result.output
    return result.stdout.splitlines()[2:]


def test_spread_of_seeds_by_hand() -> None:
    commit, edited = told(0.0, 0, 0.30), told(0.9, 0, 0.30) | {"rev": "workspace"}
    runs = [told(0, 2, 0.34), told(0, 1, 0.32), told(0.5, 0, 0.31), told(0, 0, 0.30)]
    commit["experiments"] = [*map(experiment, runs), experiment(told(0.7, 0, 0.9), "running")]
    assert spread([edited, commit]) == [
        "| carb.tau 0 | 32.0 ± 2.0 | 30.0 32.0 34.0 | 50.0 ± 0.0 |",
        "| carb.tau 0.5 | 31.0 | 31.0 | 50.0 |",
    ]


@pytest.mark.parametrize("changed", ["pipeline/carb.py", "pipeline/clip"])
def test_runs_of_other_code_are_kept_apart_by_name(changed: str) -> None:
    old, new = told(0, 0, 0.30), told(0, 1, 0.32)
    new["data"]["deps"][changed]["hash"] = "2"
    assert spread([old, new]) == [
        "| run-1 | 32.0 | 32.0 | 50.0 |",
        "| run-0 | 30.0 | 30.0 | 50.0 |",
    ]


@pytest.mark.parametrize(
    ("given", "sentence"),
    [("[]", "no run has metrics in results/segmenter.json"), ("no json", "is not JSON")],
)
def test_nothing_to_spread_is_told(given: str, sentence: str) -> None:
    result = CliRunner().invoke(app, input=given)
    assert result.exit_code == 2
    assert sentence in result.output
