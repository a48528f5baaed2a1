"""The benches by name, each run in a process of its own: its peak memory is its own, too."""

import importlib
import logging
import multiprocessing
import tempfile
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.timing import Measure, processor

if TYPE_CHECKING:
    from rich.table import Table

BENCHES = {  # name -> module:function; modules are imported by the process that needs them
    "tower": "bench.speed_pseudo:tower",
    "authors": "bench.speed_pseudo:authors_way",
    "store": "bench.speed_store:number_format",
    "loader": "bench.speed_training:loader",
    "online": "bench.speed_training:online",
    "evaluation": "bench.speed_evaluation:evaluation",
    "growth": "bench.speed_growth:growth",
    "extension": "bench.speed_growth:extension",
    "repro": "bench.speed_start:repro",
    "start": "bench.speed_start:start",
}


def run_bench(name: str, workload: str) -> list[Measure]:
    """Run one bench in this process.

    Args:
        name: key of ``BENCHES``.
        workload: name of a `Workload` in `bench.workload`.
    """
    from bench import workload as workloads

    logging.getLogger("carb").setLevel(logging.ERROR)  # of the work, the figures are enough
    module, function = BENCHES[name].split(":")
    work = getattr(workloads, workload)
    with tempfile.TemporaryDirectory() as folder:
        found: Iterator[Measure] = getattr(importlib.import_module(module), function)(
            work, Path(folder)
        )
        return list(found)


def machine(device: str) -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    about: dict[str, Any] = {"processor": processor(), "torch": torch.__version__}
    if device == "cuda":
        about["device"] = torch.cuda.get_device_name()
    return about


def in_own_process(function: Any, *arguments: Any) -> Any:
    """What a function of a module returns, called in a fresh process."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def table_of(measures: list[Measure]) -> "Table":
    """The figures, with their targets."""
    from rich.table import Table

    table = Table("bench", "what", "figure", "min .. max", "rounds", "target", "")
    for one in measures:
        bound = "" if one.target is None else f"{'>=' if one.at_least else '<='} {one.target:g}"
        verdict = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[one.met]
        spread = f"{one.low:.2f} .. {one.high:.2f}" if one.rounds > 1 else ""
        figure = f"{one.value:.2f}{one.unit and ' ' + one.unit}"
        table.add_row(one.bench, one.what, figure, spread, str(one.rounds), bound, verdict)
    return table
