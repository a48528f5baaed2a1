"""Speed benchmarks, reported as ratios; each one runs in its own process.

python -m bench.speed                        all of them, on the CPU
python -m bench.speed --device cuda --quick  in under 5 minutes
"""

import importlib
import json
import logging
import os
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from bench.timing import Measure, in_own_process, processor
from pipeline.system.command import command
from pipeline.system.files import write_json
from pipeline.system.outputs import outputs

if TYPE_CHECKING:
    from rich.table import Table

app = typer.Typer(add_completion=False)
log = logging.getLogger("carb")
BENCHES = {  # name -> module:function, imported in the benchmark's own process
    "tower": "bench.speed_pseudo:tower",
    "authors": "bench.speed_pseudo:authors_way",
    "loader": "bench.speed_training:loader",
    "online": "bench.speed_training:online",
    "evaluation": "bench.speed_evaluation:evaluation",
    "compile": "bench.speed_training:compiled",
    "busy": "bench.speed_busy:busy",
}
QUICK = ("tower", "loader", "evaluation", "compile")


def run_bench(name: str, workload: str, quick: bool = False) -> list[Measure]:
    """Run one benchmark in this process.

    Args:
        name: key of ``BENCHES``.
        workload: name of a `Workload` in `bench.workload`.
        quick: see `Workload.quick`.
    """
    workloads = importlib.import_module("bench.workload")
    log.setLevel(logging.ERROR)
    module, function = BENCHES[name].split(":")
    bench, work = getattr(importlib.import_module(module), function), getattr(workloads, workload)
    with tempfile.TemporaryDirectory() as folder:
        return list(bench(work.quick() if quick else work, Path(folder)))


def machine(device: str) -> dict[str, Any]:
    """Processor, torch version and GPU of the measurement."""
    import torch

    about: dict[str, Any] = {"processor": processor(), "torch": torch.__version__}
    if device == "cuda":
        found = torch.cuda.is_available()
        about["device"] = torch.cuda.get_device_name() if found else None
    return about


def table_of(measures: list[Measure]) -> "Table":
    """One row per measurement, with its details and target."""
    from rich.table import Table

    table = Table("bench", "what", "value", "min .. max", "rounds", "target", "")
    for one in measures:
        bound = "" if one.target is None else f"{'>=' if one.at_least else '<='} {one.target:g}"
        verdict = {None: "", True: "[green]met[/]", False: "[red]missed[/]"}[one.met]
        spread = f"{one.low:.2f} .. {one.high:.2f}" if one.rounds > 1 else ""
        value = f"{one.value:.2f}{one.unit and ' ' + one.unit}"
        details = "; ".join(f"{name} {value}" for name, value in one.details.items())
        what = f"{one.what}\n[dim]{details}[/]"
        table.add_row(one.bench, what, value, spread, str(one.rounds), bound, verdict)
    return table


@app.command()
@command
def main(
    names: Annotated[
        list[str] | None, typer.Argument(help=f"Any of: {', '.join(BENCHES)}.")
    ] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    quick: Annotated[
        bool, typer.Option("--quick", help=f"Shorter races; without names: {', '.join(QUICK)}.")
    ] = False,
    out: Annotated[Path, typer.Option(help="JSON file of the results.")] = Path(
        "scratch/speed.json"
    ),
) -> None:
    """Run the named benchmarks, or all: about 15 minutes on two cores."""
    unknown = [name for name in names or [] if name not in BENCHES]
    if unknown or device not in ("cpu", "cuda"):
        found = f"'{unknown[0]}'" if unknown else f"--device {device}"
        raise ValueError(f"benches are {', '.join(BENCHES)}, devices cpu and cuda; got {found}")
    if device == "cpu":
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # Fabric would take a GPU
    about = in_own_process(machine, device)
    if about.get("device", "") is None:
        raise ValueError("--device cuda: torch sees no GPU here; run nvidia-smi, or leave it out")
    measures: list[Measure] = []
    with outputs("speed", files={"--out": out}):
        for name in names or (QUICK if quick else BENCHES):
            log.info("%s ...", name)
            measures += in_own_process(run_bench, name, device.upper(), quick)
            results = [asdict(one) | {"met": one.met} for one in measures]
            write_json(out, {**about, "measures": results})  # kept if a later one fails
    from rich.console import Console

    Console().print(table_of(measures))
    log.info("%s", json.dumps(about))


if __name__ == "__main__":
    app()
