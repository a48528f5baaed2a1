"""Spread over the seeds of DVC's experiments, by hand."""

import json
from typing import Any

import pytest
from typer.testing import CliRunner

from bench.spread import app


def run_of(tau: Any, seed: int, value: float, **other: Any) -> dict[str, Any]:
    """A run as in the output of `dvc exp show --json`."""
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
    commit, edited = run_of(0.0, 0, 0.30), run_of(0.9, 0, 0.30) | {"rev": "workspace"}
    runs = [run_of(0, 2, 0.34), run_of(0, 1, 0.32), run_of(0.5, 0, 0.31), run_of(0, 0, 0.30)]
    commit["experiments"] = [*map(experiment, runs), experiment(run_of(0.7, 0, 0.9), "running")]
    assert spread([edited, commit]) == [
        "| carb.tau 0 | 32.0 ± 2.0 | 30.0 32.0 34.0 | 50.0 ± 0.0 |",
        "| carb.tau 0.5 | 31.0 | 31.0 | 50.0 |",
    ]


@pytest.mark.parametrize("changed", ["pipeline/carb.py", "pipeline/clip"])
def test_runs_of_other_code_are_kept_apart_by_name(changed: str) -> None:
    old, new = run_of(0, 0, 0.30), run_of(0, 1, 0.32)
    new["data"]["deps"][changed]["hash"] = "2"
    assert spread([old, new]) == [
        "| run-1 | 32.0 | 32.0 | 50.0 |",
        "| run-0 | 30.0 | 30.0 | 50.0 |",
    ]


def test_input_without_runs_is_refused() -> None:
    for given, sentence in (("[]", "no run has metrics in results/seg"), ("x", "is not JSON")):
        result = CliRunner().invoke(app, input=given)
        assert result.exit_code == 2
        assert sentence in result.output
