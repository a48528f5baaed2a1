"""How time, memory and disk grow with the number of photos.

    python -m bench.scale --photos 100000 --out scratch/scale

It draws so many tiny photos and a tenth of them, runs the stages on both, and what DVC does with
their files, each step in a process of its own. A step that grows as the photos do takes ten times
as long at the larger number.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.system.command import command
from pipeline.system.files import remove, write_json
from pipeline.system.outputs import outputs, visible_files

app = typer.Typer(add_completion=False)
HERE = Path(__file__).parent.parent
PARAMS: dict[str, Any] = {
    "dataset.name": "folder",
    "dataset.root": "photos",
    "clip.model": f"local-dir:{HERE / 'demo/clip'}",
    "clip.precision": "32-true",
    "clip.levels": {
        "global": {"zoom": 1.0, "window": [64, 64], "overlap": 0.5},
        "local": {"zoom": 0.5, "window": [64, 64], "overlap": 0.5},  # one window a photo
    },
    "views.base_size": [32, 64],
    "views.crop": [32, 64],
    "views.local_window": [32, 32],
    "segmenter.encoder_weights": "none",
    "train.precision": "32-true",
    "train.steps": 1,
    "carb.warmup_steps": 1,
    "carb.warmup_share": None,
}
STAGES = """\
stages:
  prepare:
    cmd: python -m stages.prepare
    deps: [photos]
    outs: [data/scenes.json, data/image_labels.csv]
  pseudo:
    cmd: python -m stages.pseudo
    deps: [data/scenes.json]
    outs: [data/masks.zarr: {persist: true}]
"""


@dataclass(frozen=True)
class Step:
    """A command line to measure, and what it leaves on the disk.

    Attributes:
        name: as the table shows it.
        line: arguments of ``python -m``.
        outs: files and folders to weigh, relative to the folder of the photos.
    """

    name: str
    line: list[str]
    outs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Cost:
    """What a step took: seconds by the clock and of the processor (which a busy machine leaves as
    they are), peak resident MiB of its process, MiB and files that it left."""

    photos: int
    step: str
    seconds: float
    cpu_s: float
    peak_mib: float
    disk_mib: float
    files: int


def steps_of(photos: int) -> list[Step]:
    """The steps in order; the last ones run again with one photo more."""
    store, index = "data/masks.zarr", ("data/scenes.json", "data/image_labels.csv")
    alone = "bench.scale_steps"
    return [
        Step("draw photos", [alone, "draw", "--stop", f"{photos}"], ("photos",)),
        Step("prepare", ["stages.prepare"], index),
        Step("read index", [alone, "index"], index[:1]),
        Step("read labels", [alone, "labels"], index[1:]),
        Step("pseudo", ["stages.pseudo"], (store,)),
        Step("pseudo, nothing new", ["stages.pseudo"]),
        Step("open store", [alone, "open"], (f"{store}/zarr.json",)),
        Step("open all inputs", [alone, "inputs"]),
        Step("class frequency", [alone, "frequency"]),
        Step("1000 crops", [alone, "crops"]),
        Step("encoder", ["stages.encoder"]),
        Step("train, one step", ["stages.train"]),
        Step("dvc commit photos", ["dvc", "commit", "-f", "prepare"]),
        Step("dvc commit store", ["dvc", "commit", "-f", "pseudo"], (".dvc",)),
        Step("dvc status", ["dvc", "status"]),
        Step("one more: draw", [alone, "draw", "--start", f"{photos}", "--stop", f"{photos + 1}"]),
        Step("one more: prepare", ["stages.prepare"]),
        Step("one more: pseudo", ["stages.pseudo"]),
        Step("one more: dvc status", ["dvc", "status"]),
    ]


def _is_own(folder: Path) -> bool:
    """Whether `lay_out` made a folder."""
    file = folder / "dvc.yaml"
    return file.is_file() and file.read_text("utf-8", "replace") == STAGES


def lay_out(folder: Path) -> None:
    """An empty project for tiny photos: parameters, and a DVC repository of its own."""
    from bench.settings import write_changed

    if any(visible_files(folder)) and not _is_own(folder):
        raise ValueError(f"--out: {folder} holds other files; name a new folder")
    remove(folder)
    write_changed(HERE / "params.yaml", folder / "params.yaml", PARAMS)
    (folder / "dvc.yaml").write_text(STAGES, "utf-8")
    for line in (
        ["init", "--no-scm", "-q"],
        ["config", "core.analytics", "false"],
        ["config", "core.site_cache_dir", f"{(folder / '.dvc/site').resolve()}"],
    ):
        subprocess.run([sys.executable, "-m", "dvc", *line], cwd=folder, check=True)


def measure(step: Step, folder: Path, photos: int) -> Cost:
    """Run a step in a process of its own; what it says goes to ``log.txt``.

    Raises:
        ValueError: it failed; names the log.
    """
    environment = os.environ | {"PYTHONPATH": str(HERE)}
    clock = time.perf_counter()
    with (folder / "log.txt").open("a+") as log:
        log.write(f"\n{step.name}\n")
        log.flush()
        process = subprocess.Popen(
            [sys.executable, "-m", *step.line], cwd=folder, env=environment, stdout=log, stderr=log
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        seconds = time.perf_counter() - clock
        if process.returncode:
            raise ValueError(f"{folder / 'log.txt'}: '{step.name}' failed; see the last lines")
        log.seek(0)
        said = log.read().splitlines()[-1]
    cpu_s = usage.ru_utime + usage.ru_stime
    if step.line[0] == "bench.scale_steps":
        seconds, cpu_s = map(float, said.split())
    disk, files = weigh([folder / out for out in step.outs])
    return Cost(photos, step.name, seconds, cpu_s, usage.ru_maxrss / 1024, disk / 2**20, files)


def weigh(paths: list[Path]) -> tuple[int, int]:
    """Bytes and number of the files at and below some paths."""
    files = [path for path in paths if path.is_file()]
    files += [file for path in paths for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files), len(files)


def show(costs: list[Cost]) -> None:
    """Print a table: a line a step, the numbers of photos side by side."""
    from rich.console import Console
    from rich.table import Table

    sizes = sorted({cost.photos for cost in costs})
    table = Table("step")
    for photos in sizes:
        for column in (f"{photos}: s", "CPU s", "peak MiB", "disk MiB", "files"):
            table.add_column(column, justify="right")
    table.add_column("CPU s grow", justify="right")
    found = {(cost.step, cost.photos): cost for cost in costs}
    for name in dict.fromkeys(cost.step for cost in costs):
        line = [found.get((name, photos)) for photos in sizes]
        cells = [name]
        for cost in line:
            cells += _cells(cost)
        first, last = line[0], line[-1]
        cells.append(f"{last.cpu_s / max(first.cpu_s, 1e-9):.1f}" if first and last else "")
        table.add_row(*cells)
    Console(width=160).print(table)


def _cells(cost: Cost | None) -> list[str]:
    if cost is None:
        return [""] * 5
    disk = [f"{cost.disk_mib:.1f}", f"{cost.files}"] if cost.files else ["", ""]
    return [f"{cost.seconds:.2f}", f"{cost.cpu_s:.2f}", f"{cost.peak_mib:.0f}", *disk]


@app.command()
@command
def main(
    photos: Annotated[int, typer.Option(min=20, help="The larger number of photos.")] = 100_000,
    out: Annotated[Path, typer.Option(help="Folder to work in.")] = Path("scratch/scale"),
    only: Annotated[
        list[str] | None, typer.Option(help="A step to run again on what is there; repeat it.")
    ] = None,
) -> None:
    """Measure every step at a tenth of the photos and at all of them."""
    ledger, costs = out / "costs.json", list[Cost]()
    outputs("scale", files={"--out": ledger})
    if only and ledger.exists():
        costs = [Cost(**cost) for cost in json.loads(ledger.read_text("utf-8"))]
    for count in (photos // 10, photos):
        steps = steps_of(count)
        if unknown := sorted(set(only or []) - {step.name for step in steps}):
            raise ValueError(f"--only {unknown[0]}: no such step")
        if not only:
            lay_out(out / f"{count}")
        for step in steps:
            if only and step.name not in only:
                continue
            costs = [cost for cost in costs if (cost.photos, cost.step) != (count, step.name)]
            costs.append(measure(step, out / f"{count}", count))
            typer.echo(f"{count} {step.name}: {' '.join(_cells(costs[-1]))}")
            with outputs("scale", files={"--out": ledger}):
                write_json(ledger, [asdict(cost) for cost in costs])
    show(costs)


if __name__ == "__main__":
    app()
