"""The last words of a run: its main figures, where everything lies, and what to do next."""

from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from pipeline.config.params import Params
from pipeline.report.results import RunResults, percent

NEXT = {
    "segment photos": "python -m stages.predict DIR",
    "change one value": "dvc exp run -S carb.tau=0.5",
    "compare runs": "dvc exp show",
}


class Place(NamedTuple):
    """Something that a run leaves: what it is, and where."""

    what: str
    path: str


def places(results: RunResults) -> list[Place]:
    """Where everything lies, as far as the stages left it; paths from the project's folder."""
    folder = results.folder
    left = {
        "segmenter: panels, figures": folder / "eval",
        "pseudo-masks: panels, figures": folder / "eval_pseudo",
        "training: curves, previews": folder / "train/plots",
        "CLIP: what it found": folder / "pseudo",
        "data: photos, classes, sizes": folder / "prepare",
    }
    return [
        Place("report, to read and to mail", (folder / "report.html").as_posix()),
        Place("segmenter, opens with smp", "models/segmenter"),
        *(Place(what, path.as_posix()) for what, path in left.items() if path.is_dir()),
    ]


def headline(results: RunResults) -> dict[str, str]:
    """The main figures in percent: mIoU of the pseudo-masks and of the segmenter."""
    found = {}
    for split in ("train", "val"):
        level = results.best_level(split)
        if level is not None:
            value = percent(results.levels(split)[level]["mIoU"])
            found[f"mIoU, pseudo-masks, {split}"] = f"{value} % ({level} level)"
    if results.segmenter:
        found["mIoU, segmenter, val"] = f"{percent(results.segmenter['mIoU'])} %"
        accuracy = percent(results.segmenter["pixel accuracy"])
        found["pixel accuracy, segmenter, val"] = f"{accuracy} %"
    return found


def print_summary(results: RunResults, settings: Params, console: Console) -> None:
    """Print the summary of a run: a table on a terminal, the same lines in a log."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(overflow="fold")
    table.add_column(overflow="fold")
    figures = headline(results) or {"figures": "none: no photo has a human mask"}
    carb, steps = settings.carb, settings.train.steps
    if carb.enabled and not carb.active_steps(steps):
        figures["CARB"] = carb.acted(steps)
    for title, rows in (
        (f"Results on '{results.index.label_space.name}'", [*figures.items()]),
        ("Where everything lies", [*places(results)]),
        ("What next", [*NEXT.items()]),
    ):
        table.add_row(title, "", style="bold")
        for what, value in rows:
            table.add_row(f"  {what}", value)
        table.add_row()
    console.print(table)
