"""Mean and spread over the seeds of DVC's experiments, as the ablation tables have them.

    dvc exp show --json | python -m bench.spread

Runs that differ in nothing but the seed are one row: the same parameters, code, photos, labels and
pseudo-masks. The same run under two names (an experiment and the branch made of it) counts once.
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
INPUTS = (
    "data/scenes.json",
    "data/image_labels.csv",
    "data/masks.zarr",
    "models/encoder.safetensors",
)
MOST_NAMED = 4  # parameters in a row's name; recipes differ in more
SAME = "as it is"


@dataclass(frozen=True)
class Run:
    """A finished run as `dvc exp show` tells it.

    Attributes:
        name: of the experiment, branch or commit.
        seed: of its training.
        settings: dotted name -> value as text, of every parameter but the seed.
        code: digest of each file of Python.
        inputs: digest of each input of training.
        figures: main figures of the segmenter.
    """

    name: str
    seed: int
    settings: dict[str, str]
    code: dict[str, str]
    inputs: dict[str, str]
    figures: dict[str, Any]


def finished_runs(shown: list[dict[str, Any]]) -> Iterator[Run]:
    """The runs that have figures; not the workspace, whose parameters may be edited and not run."""
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
                    code={path: deps[path] for path in deps if path.endswith(".py")},
                    inputs={path: deps[path] for path in INPUTS if path in deps},
                    figures=metrics,
                )


def _experiments(commit: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """What was run from a commit and is over; a queued or running one has its parent's figures."""
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
    """A value as text; 0 and 0.0 are one, for `-S carb.tau=0` writes the one or the other."""
    if value is None:
        return "empty"
    whole = isinstance(value, float) and value.is_integer()
    return json.dumps(int(value) if whole else value).strip('"')


def by_setting(runs: Iterator[Run]) -> Scores:
    """Figures of the runs of each setting in the order of their seeds; the best setting first."""
    groups: dict[str, dict[int, Run]] = defaultdict(dict)
    for run in runs:
        key = json.dumps([run.settings, run.code, run.inputs], sort_keys=True)
        groups[key].setdefault(run.seed, run)
    first = [next(iter(group.values())) for group in groups.values()]
    names = _names(first)
    means = {
        name: [group[seed].figures for seed in sorted(group)]
        for name, group in zip(names, groups.values(), strict=True)
    }
    return dict(sorted(means.items(), key=lambda item: -_mean(item[1])))


def _mean(figures: list[dict[str, Any]]) -> float:
    return float(sum(one["mIoU"] for one in figures) / len(figures))


def _names(runs: list[Run]) -> list[str]:
    """A name for each setting: the values that differ, or where that says too much or too little
    the name of one of its runs."""
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
    """Read what `dvc exp show --json` says and print a row a setting, with mean and spread."""
    if sys.stdin.isatty():
        raise ValueError("nothing to read; run `dvc exp show --json | python -m bench.spread`")
    try:
        shown = json.load(sys.stdin)
    except json.JSONDecodeError as error:
        raise ValueError(
            f"what `dvc exp show --json` says must be JSON ({error}); run it alone to see"
        ) from None
    scores = by_setting(finished_runs(shown))
    if not scores:
        raise ValueError(f"no run has figures in {SUMMARY}; run `dvc repro` first")
    print(miou_table(scores, {}), end="")


if __name__ == "__main__":
    app()
