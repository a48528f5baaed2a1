"""How fast the pipeline is, in ratios: each bench in a process of its own.

python -m bench                      all, on the CPU
python -m bench tower online --device cuda
"""

import json
import logging
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from bench.harness import BENCHES, in_own_process, machine, run_bench, table_of
from bench.timing import Measure
from pipeline.system.command import command
from pipeline.system.files import write_json
from pipeline.system.outputs import outputs

app = typer.Typer(add_completion=False)
log = logging.getLogger("carb")


@app.command()
@command
def main(
    names: Annotated[list[str] | None, typer.Argument(help=f"Of: {', '.join(BENCHES)}.")] = None,
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    out: Annotated[Path, typer.Option(help="JSON file of the figures.")] = Path(
        "scratch/bench.json"
    ),
) -> None:
    """Measure all, or those that are named; about 12 minutes on two cores."""
    strange = [name for name in names or [] if name not in BENCHES]
    if strange or device not in ("cpu", "cuda"):
        found = f"'{strange[0]}'" if strange else f"--device {device}"
        raise ValueError(f"benches are {', '.join(BENCHES)}, devices cpu and cuda; got {found}")
    about = in_own_process(machine, device)
    measures: list[Measure] = []
    with outputs("bench", files={"--out": out}):
        for name in names or BENCHES:
            log.info("%s ...", name)
            measures += in_own_process(run_bench, name, device.upper())
        write_json(out, {**about, "measures": [asdict(one) | {"met": one.met} for one in measures]})
    from rich.console import Console

    Console().print(table_of(measures))
    log.info("%s", json.dumps(about))


if __name__ == "__main__":
    app()
