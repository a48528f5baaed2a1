"""Speed benchmarks, reported as ratios; each one runs in its own process.

python -m bench.speed                        all of them, on the CPU
python -m bench.speed tower online --device cuda
"""

import importlib
import json
import logging
import multiprocessing
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.timing import Measure, processor, summarise
from pipeline.system.command import command
from pipeline.system.files import write_json
from pipeline.system.outputs import outputs

if TYPE_CHECKING:
    from rich.table import Table

    from bench.workload import Workload

app = typer.Typer(add_completion=False)
log = logging.getLogger("carb")
BENCHES = {  # name -> module:function, imported in the benchmark's own process
    "tower": "bench.speed_pseudo:tower",
    "authors": "bench.speed_pseudo:authors_way",
    "loader": "bench.speed_training:loader",
    "online": "bench.speed_training:online",
    "evaluation": "bench.speed_evaluation:evaluation",
    "start": "bench.speed:start",
}
ROUNDS = 5


def start(work: "Workload", folder: Path) -> Iterator[Measure]:
    """Time until a stage prints its help."""
    seconds = []
    for _ in range(ROUNDS if work.seconds else 1):
        clock = time.perf_counter()
        subprocess.run(
            [sys.executable, "-m", "stages.train", "--help"], capture_output=True, check=True
        )
        seconds.append(time.perf_counter() - clock)
    yield summarise("start", "python -m stages.train --help", seconds, target=1.0, unit="s")


def run_bench(name: str, workload: str) -> list[Measure]:
    """Run one benchmark in this process.

    Args:
        name: key of ``BENCHES``.
        workload: name of a `Workload` in `bench.workload`.
    """
    workloads = importlib.import_module("bench.workload")
    log.setLevel(logging.ERROR)
    module, function = BENCHES[name].split(":")
    with tempfile.TemporaryDirectory() as folder:
        bench = getattr(importlib.import_module(module), function)
        return list(bench(getattr(workloads, workload), Path(folder)))


def machine(device: str) -> dict[str, Any]:
    """Processor, torch version and GPU of the measurement."""
    import torch

    about: dict[str, Any] = {"processor": processor(), "torch": torch.__version__}
    if device == "cuda":
        about["device"] = torch.cuda.get_device_name()
    return about


def in_own_process(function: Any, *arguments: Any) -> Any:
    """Call a module's function in a fresh process, so that its peak memory is its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def table_of(measures: list[Measure]) -> "Table":
    """One row per measurement, with its target."""
    from rich.table import Table

    table = Table("bench", "what", "value", "min .. max", "rounds", "target", "")
    for one in measures:
        bound = "" if one.target is None else f"{'>=' if one.at_least else '<='} {one.target:g}"
        verdict = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[one.met]
        spread = f"{one.low:.2f} .. {one.high:.2f}" if one.rounds > 1 else ""
        value = f"{one.value:.2f}{one.unit and ' ' + one.unit}"
        table.add_row(one.bench, one.what, value, spread, str(one.rounds), bound, verdict)
    return table


@app.command()
@command
def main(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Any of: {', '.join(BENCHES)}.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="JSON file of the results.")] = Path(
        "scratch/speed.json"
    ),
) -> None:
    """Run the named benchmarks, or all: about 10 minutes on two cores."""
    unknown = [name for name in names or [] if name not in BENCHES]
    if unknown or device not in ("cpu", "cuda"):
        found = f"'{unknown[0]}'" if unknown else f"--device {device}"
        raise ValueError(f"benches are {', '.join(BENCHES)}, devices cpu and cuda; got {found}")
    about = in_own_process(machine, device)
    measures: list[Measure] = []
    with outputs("speed", files={"--out": out}):
        for name in names or BENCHES:
            log.info("%s ...", name)
            measures += in_own_process(run_bench, name, device.upper())
        write_json(out, {**about, "measures": [asdict(one) | {"met": one.met} for one in measures]})
    from rich.console import Console

    Console().print(table_of(measures))
    log.info("%s", json.dumps(about))


if __name__ == "__main__":
    app()
