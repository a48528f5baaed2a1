"""Report of an ablation: a table, the metrics of every run, and charts."""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from bench.groups import read_scores
from bench.settings import HUMAN_MASKS
from pipeline.metrics import nan_mean
from pipeline.report.charts import BAR_COLOURS, chart, iou_bars, save_chart
from pipeline.report.results import read_curve
from pipeline.system.files import atomic_path, write_table
from pipeline.system.text import table_cell

log = logging.getLogger("carb")
Scores = dict[str, list[dict[str, Any]]]  # setting -> metrics of each seed
CURVES = {"weight": "lambda", "reliable_fraction": "share of reliable pixels"}
PANEL, SECONDS = "panel.png", "seconds.json"
WRITTEN = ("table.md", "runs.csv", "miou.png", "iou.png", PANEL, *(f"{c}.png" for c in CURVES))


def write_report(
    out: Path, folders: Mapping[Path, str], pseudo: Mapping[str, Path], *, seeds: int
) -> None:
    """Write ``table.md``, ``runs.csv`` and four charts of an ablation whose runs are finished.

    Args:
        out: folder to write into.
        folders: folder of each setting -> its name; runs are in ``<folder>/<seed>``.
        pseudo: file of metrics of each setting's pseudo-masks; settings may share one.
        seeds: number of runs per setting.
    """
    out.mkdir(parents=True, exist_ok=True)
    scores = {
        name: [_read_json(folder / str(seed) / "eval/metrics.json") for seed in range(seeds)]
        for folder, name in folders.items()
    }
    rows = [
        {"setting": name, "seed": seed, **_flat(metrics)}
        for name, runs in scores.items()
        for seed, metrics in enumerate(runs)
    ]
    write_table(out / "runs.csv", rows)
    first = {path: name for name, path in reversed(list(pseudo.items()))}
    levels = {first[path]: _read_json(path) for path in dict.fromkeys(pseudo.values())}
    runs = {name: [folder / str(seed) for seed in range(seeds)] for folder, name in folders.items()}
    tables = [miou_table(scores, levels) + _ratio_to_bound(scores), _group_table(runs)]
    text = "\n".join([*tables, _class_table(scores)])
    with atomic_path(out / "table.md") as draft:
        draft.write_text(text, "utf-8")
    _spread_chart(scores, out / "miou.png")
    classes = list(next(iter(scores.values()))[0]["IoU"])
    means = {name: _class_means(runs) for name, runs in scores.items()}
    iou_bars(means, classes, out / "iou.png")
    for name, title in CURVES.items():
        _curve_chart(name, title, folders, seeds, out / f"{name}.png")
    log.info("%s", text)


def _read_json(path: Path) -> Any:
    return json.loads(path.read_text("utf-8"))


def _flat(metrics: dict[str, Any]) -> dict[str, Any]:
    """Metrics of a run in one row, in percent."""
    row = {"mIoU": metrics["mIoU"], "pixel accuracy": metrics["pixel accuracy"]}
    for region, values in metrics["regions"].items():
        row |= {f"{region} {name}": value for name, value in values.items()}
    row |= {f"IoU {name}": value for name, value in metrics["IoU"].items()}
    return {name: "" if value is None else round(100 * value, 2) for name, value in row.items()}


def _percent(runs: list[dict[str, Any]], name: str) -> np.ndarray:
    return 100 * np.array([np.nan if run[name] is None else run[name] for run in runs])


def _class_means(runs: list[dict[str, Any]]) -> np.ndarray:
    """Mean IoU per class over the seeds, ``[C]`` in 0..1."""
    table = [[np.nan if one is None else one for one in run["IoU"].values()] for run in runs]
    return np.array([nan_mean(column) for column in np.array(table, np.float64).T])


def _spread(values: np.ndarray) -> str:
    """Mean and sample standard deviation; ``-`` where the union is empty."""
    if np.isnan(values).any():
        return "-"
    deviation = f" ± {values.std(ddof=1):.1f}" if len(values) > 1 else ""
    return f"{values.mean():.1f}{deviation}"


def miou_table(scores: Scores, pseudo: Mapping[str, Any]) -> str:
    """Markdown: mIoU of the pseudo-masks and of each setting, mean and deviation over seeds."""
    lines = ["| | mIoU, val | seeds | pixel accuracy |", "|---|---|---|---|"]
    for place, (name, metrics) in enumerate(pseudo.items()):
        whose = f" ({name})" if place else ""
        for level, value in metrics.get("pseudo-masks val", {}).items():
            lines.append(f"| CLIP pseudo-masks, {level}{whose} | {100 * value:.1f} | | |")
    for name, runs in scores.items():
        values = _percent(runs, "mIoU")
        seeds = " ".join(f"{value:.1f}" for value in values)
        accuracy = _spread(_percent(runs, "pixel accuracy"))
        lines.append(f"| {name} | {_spread(values)} | {seeds} | {accuracy} |")
    return "\n".join(lines) + "\n"


def _ratio_to_bound(scores: Scores) -> str:
    """Each mean mIoU in percent of that with human masks, a line per setting; "" without these."""
    if HUMAN_MASKS not in scores:
        return ""
    means = {name: _percent(runs, "mIoU").mean() for name, runs in scores.items()}
    bound = means.pop(HUMAN_MASKS)
    lines = [f"{name}: {100 * mean / bound:.0f} % of the bound" for name, mean in means.items()]
    return "\n" + "\n".join(lines) + "\n"


def _group_table(runs: Mapping[str, list[Path]]) -> str:
    """Markdown: mIoU per group of images, and minutes of training; mean and deviation."""
    rows = {name: [read_scores(run) for run in folders] for name, folders in runs.items()}
    groups = list(next(iter(rows.values()))[0])
    lines = [f"| mIoU | {' | '.join(groups)} | training, min |", "|---" * (len(groups) + 2) + "|"]
    for name, scores in rows.items():
        cells = [_spread(100 * np.array([each[group] for each in scores])) for group in groups]
        seconds = np.array([_read_json(run / SECONDS)["train"] for run in runs[name]])
        lines.append(f"| {name} | {' | '.join([*cells, _spread(seconds / 60)])} |")
    return "\n".join(lines) + "\n"


def _class_table(scores: Scores) -> str:
    """Markdown: IoU per class, mean and deviation over seeds, one column per setting."""
    lines = [f"| class | {' | '.join(scores)} |", "|---" * (len(scores) + 1) + "|"]
    for name in next(iter(scores.values()))[0]["IoU"]:
        cells = [_spread(_percent([run["IoU"] for run in runs], name)) for runs in scores.values()]
        lines.append(f"| {table_cell(name)} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _spread_chart(scores: Scores, path: Path) -> None:
    """Chart: mean mIoU of each setting as a bar, its seeds as points."""
    with chart(8.0, 0.9 + 0.5 * len(scores)) as (figure, axes):
        for place, runs in enumerate(scores.values()):
            values = _percent(runs, "mIoU")
            axes.barh(place, values.mean(), 0.6, color=BAR_COLOURS[4], zorder=1)
            axes.scatter(values, np.full(len(values), place), c="0.15", s=14, zorder=2)
            end = values.max() + 0.6
            axes.text(end, place, _spread(values), va="center", size=9, c="0.2")
        axes.set_yticks(range(len(scores)), list(scores))
        axes.set_ylim(len(scores) - 0.5, -0.5)
        axes.set_xlim(0, max(_percent(runs, "mIoU").max() for runs in scores.values()) * 1.2)
        axes.set_xlabel("mIoU in %, one point per seed", color="0.35")
        save_chart(figure, path)


def _curve_chart(
    name: str, title: str, folders: Mapping[Path, str], seeds: int, path: Path
) -> None:
    """Chart: one curve per run, one colour per setting."""
    with chart(8.0, 4.0) as (figure, axes):
        for place, (folder, setting) in enumerate(folders.items()):
            for seed in range(seeds):
                curve = read_curve(folder / str(seed) / f"curves/plots/metrics/{name}.tsv")
                label = setting if seed == 0 else None
                colour = BAR_COLOURS[place % len(BAR_COLOURS)]
                axes.plot(*curve.T, color=colour, linewidth=1.2, alpha=0.8, label=label)
        axes.set_ylabel(title, color="0.35")
        axes.set_xlabel("step", color="0.35")
        axes.grid(color="0.9")
        axes.set_ylim(bottom=0)
        axes.legend(frameon=False, fontsize=9)
        save_chart(figure, path)
