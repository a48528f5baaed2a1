"""Kill the pipeline at random moments and compare its outputs with an undisturbed run.

python -m tests.helpers.faults --kills 20 --seed 1
"""

import random
import tempfile
import time
from pathlib import Path
from typing import Annotated

import typer

from tests.helpers.faults.kills import kill_and_compare, undisturbed

app = typer.Typer(add_completion=False)


@app.command()
def main(
    kills: Annotated[int, typer.Option(min=1, help="Number of kills (SIGKILL).")] = 20,
    seed: Annotated[int, typer.Option(help="Random seed of the moments.")] = 0,
) -> None:
    """Kill the pipeline at random moments and compare its outputs with an undisturbed run."""
    start = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        reference = undisturbed(Path(folder) / "reference")
        kill_and_compare(
            Path(folder), reference, kills=kills, random=random.Random(seed), report=typer.echo
        )
    typer.echo(f"{kills} kills, outputs equal to the byte, {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    app()
