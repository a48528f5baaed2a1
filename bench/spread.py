"""Mean and standard deviation over the seeds of DVC experiments.

    dvc exp show --json | python -m bench.spread

Runs that differ only in the seed share a row: same parameters, code, images, labels and
pseudo-masks. A run with two names (an experiment and a branch made from it) counts once.
"""

import json
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import typer

from bench.report import Scores, miou_table
from pipeline.system.command import command

app = typer.Typer(add_completion=False)
SUMMARY, PARAMS = "results/segmenter.json", "params.yaml"
CODE = ("pipeline", "stages", "demo")  # files or folders of code among the dependencies
INPUTS = (
    "data/scenes.json",
    "data/image_labels.csv",
    "data/masks.zarr",
    "models/encoder.safetensors",
)
MOST_NAMED = 4  # parameters in a row's name
SAME = "as it is"


@dataclass(frozen=True)
class Run:
    """A finished run from `dvc exp show`.

    Attributes:
        name: name of the experiment, branch or commit.
        seed: training seed.
        settings: dotted name -> value as text, of every other parameter.
        code: digests of the code, by path.
        inputs: digests of the inputs of training, by path.
        metrics: main metrics of the segmenter.
    """

    name: str
    seed: int
    settings: dict[str, str]
    code: dict[str, str]
    inputs: dict[str, str]
    metrics: dict[str, Any]


def finished_runs(shown: list[dict[str, Any]]) -> Iterator[Run]:
    """All runs with metrics, except the workspace, whose parameters may have been edited since."""
    for commit in (one for one in shown if one["rev"] != "workspace"):
        for state in (commit, *_experiments(commit)):
            data = state["data"]
            metrics = data["metrics"].get(SUMMARY, {}).get("data") if data else None
            params = data["params"].get(PARAMS, {}).get("data") if data else None
            if metrics and params:
                deps = {path: dep["hash"] for path, dep in data["deps"].items() if dep}
                settings = dict(_flat(params))
                yield Run(
                    name=state["name"] or state["rev"][:7],
                    seed=int(settings.pop("seed")),
                    settings=settings,
                    code={path: deps[path] for path in deps if path.split("/")[0] in CODE},
                    inputs={path: deps[path] for path in INPUTS if path in deps},
                    metrics=metrics,
                )


def _experiments(commit: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Finished experiments of a commit; others still have their parent's metrics."""
    for experiment in commit["experiments"] or []:
        executor = experiment["executor"] or {}
        if executor.get("state") in (None, "success"):
            yield experiment["revs"][0]


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _text(value)


def _text(value: Any) -> str:
    """A value as text; 0 and 0.0 are equal, because `-S carb.tau=0` may write either."""
    if value is None:
        return "empty"
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value).strip('"')


def by_setting(runs: Iterator[Run]) -> Scores:
    """Metrics of each setting's runs, ordered by seed; the best setting first."""
    groups: dict[str, dict[int, Run]] = defaultdict(dict)
    for run in runs:
        key = json.dumps([run.settings, run.code, run.inputs], sort_keys=True)
        groups[key].setdefault(run.seed, run)
    first = [next(iter(group.values())) for group in groups.values()]
    names = _names(first)
    means = {
        name: [group[seed].metrics for seed in sorted(group)]
        for name, group in zip(names, groups.values(), strict=True)
    }
    return dict(sorted(means.items(), key=lambda item: -_mean(item[1])))


def _mean(metrics: list[dict[str, Any]]) -> float:
    return float(sum(one["mIoU"] for one in metrics) / len(metrics))


def _names(runs: list[Run]) -> list[str]:
    """A name per setting: the values that differ, or the name of one of its runs if these are too
    many or do not distinguish the settings."""
    known = {name: None for run in runs for name in run.settings}
    varied = [name for name in known if len({run.settings.get(name) for run in runs}) > 1]
    named = [
        ", ".join(f"{name} {run.settings.get(name, 'absent')}" for name in varied) or SAME
        for run in runs
    ]
    same_code = all(run.code == runs[0].code for run in runs)
    if len(varied) > MOST_NAMED or len(set(named)) < len(named) or not same_code:
        return [run.name for run in runs]
    return named


@app.command()
@command
def main() -> None:
    """Read the output of `dvc exp show --json` and print one row per setting."""
    if sys.stdin.isatty():
        raise ValueError("no input; run `dvc exp show --json | python -m bench.spread`")
    try:
        shown = json.load(sys.stdin)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"the output of `dvc exp show --json` is not JSON ({error}); run it alone to see why"
        ) from None
    scores = by_setting(finished_runs(shown))
    if not scores:
        raise ValueError(f"no run has metrics in {SUMMARY}; run `dvc repro` first")
    print(miou_table(scores, {}), end="")


if __name__ == "__main__":
    app()
