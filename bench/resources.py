"""Seconds and peak memory of each stage, and seconds of DVC itself with many photos; on Linux.

python -m bench.resources watch dvc repro --force    of the stages that a command runs
python -m bench.resources dvc --photos 100000        of a clone with so many tiny photos
"""

import json
import logging
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import psutil
import typer
from PIL import Image

from bench.settings import write_changed
from pipeline.scenes.classes import LABEL_SPACES
from pipeline.system.command import command
from pipeline.system.files import bytes_text

app = typer.Typer(add_completion=False)
log = logging.getLogger("carb")
STAGE = re.compile(r"-m (?:stages\.|stages )(\w+)")
INTERVAL_S = 0.05
SIZE = (32, 48)  # of a tiny photo, pixels
PHOTOS_PER_FOLDER = 1000
LEVEL = {"zoom": 0.5, "window": [64, 64], "overlap": 0.5}
SMALL: dict[str, Any] = {  # one small window per photo and level, two steps
    "dataset.name": "folder",
    "dataset.root": "photos",
    "clip.demo_on_photos": True,
    "clip.window_share": 0.0,
    "clip.levels": {"global": LEVEL, "local": LEVEL},
    "clip.fused": None,
    "views.base_size": [32, 64],
    "views.crop": [32, 64],
    "views.local_window": [32, 32],
    "train.steps": 2,
}


@dataclass
class Cost:
    """What a stage took.

    Attributes:
        seconds: from its first to its last process.
        memory: largest sum over its processes, bytes: of their private memory, and once of what
            they share with others, libraries included.
    """

    seconds: float = 0.0
    memory: int = 0


def watch_stages(line: Sequence[str], folder: Path) -> tuple[float, dict[str, Cost]]:
    """Run a command and observe the stages among its child processes.

    Args:
        line: the command.
        folder: its working folder.

    Returns:
        Seconds of the command, and the cost by stage.

    Raises:
        ValueError: it failed.
    """
    costs, begun = dict[str, Cost](), dict[str, float]()
    start = time.perf_counter()
    process = psutil.Popen(line, cwd=folder)
    while process.poll() is None:
        # Processes are read one after the other. Memory that one gives up to another in between is
        # counted twice, but not in the next reading: the smaller of both counts.
        memory_of = _memory_by_stage(process) & _memory_by_stage(process)
        for stage, memory in memory_of.items():
            now, cost = time.perf_counter(), costs.setdefault(stage, Cost())
            cost.seconds = now - begun.setdefault(stage, now)
            cost.memory = max(cost.memory, memory)
        time.sleep(INTERVAL_S)
    if process.returncode:
        raise ValueError(f"{' '.join(line)}: exit code {process.returncode}; see its messages")
    return time.perf_counter() - start, costs


def _memory_by_stage(process: psutil.Process) -> Counter[str]:
    """Bytes that the processes of each stage use at this moment."""
    stage_of, private, shared = dict[int, str](), Counter[str](), Counter[str]()
    for child in process.children(recursive=True):  # parents before their children
        try:
            found = STAGE.search(" ".join(child.cmdline()))
            stage = found[1] if found else stage_of.get(child.ppid())
            if stage is not None:
                stage_of[child.pid] = stage
                memory = child.memory_full_info()
                private[stage] += memory.uss
                shared[stage] = max(shared[stage], memory.rss - memory.uss)
        except (psutil.NoSuchProcess, psutil.AccessDenied):  # it has just ended
            continue
    return private + shared


def draw_photos(root: Path, count: int) -> None:
    """Draw training photos of soft noise, with the classes that are in them."""
    names = [info.name for info in LABEL_SPACES["cityscapes"].classes]
    draw, labels = np.random.default_rng(0), dict[str, list[str]]()
    for number in range(count):
        key = f"{number // PHOTOS_PER_FOLDER:04d}/{number:07d}"
        file = root / "images" / f"{key}.jpg"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = Image.fromarray(draw.integers(0, 256, (4, 6, 3), dtype=np.uint8))
        noise.resize((SIZE[1], SIZE[0]), Image.Resampling.BILINEAR).save(file)
        labels[key] = draw.choice(names, 4, replace=False).tolist()
    (root / "classes.txt").write_text("\n".join(names) + "\n", "utf-8")
    (root / "labels.json").write_text(json.dumps(labels), "utf-8")


def clone(folder: Path, photos: int) -> None:
    """Clone this repository at its last commit, with tiny photos and small settings.

    Raises:
        ValueError: the folder exists.
    """
    if folder.exists():
        raise ValueError(f"--out: {folder} exists; remove it or name another folder")
    here = Path(__file__).parent.parent
    subprocess.run(["git", "clone", "--quiet", here, folder], check=True)
    write_changed(folder / "params.yaml", folder / "params.yaml", SMALL)
    draw_photos(folder / "photos", photos)


def show(costs: dict[str, Cost]) -> None:
    """Print a line per stage or command."""
    for name, cost in costs.items():
        memory = bytes_text(cost.memory) if cost.memory else ""
        print(f"{name:28} {cost.seconds:7.1f} s {memory:>10}", flush=True)


@app.command(context_settings={"allow_interspersed_args": False})
@command
def watch(line: Annotated[list[str], typer.Argument(help="Command that runs stages.")]) -> None:
    """Run a command, such as "dvc repro --force", and show what each stage in it took."""
    _, costs = watch_stages(line, Path())
    show(costs)


@app.command("dvc")
@command
def time_dvc(
    photos: Annotated[int, typer.Option(min=1, help="Number of photos.")] = 3000,
    out: Annotated[Path, typer.Option(help="Folder of the clone; must not exist.")] = Path(
        "scratch/resources"
    ),
) -> None:
    """Run all stages of a clone with so many tiny photos, then DVC with nothing left to do."""
    clone(out, photos)
    dvc = [sys.executable, "-m", "dvc"]
    seconds, costs = watch_stages([*dvc, "repro", "--quiet"], out)
    show(costs | {"dvc repro": Cost(seconds)})
    for line in (["repro"], ["status"], ["status", "train"], ["commit", "--force"]):
        seconds, _ = watch_stages([*dvc, *line], out)
        show({f"then dvc {' '.join(line)}": Cost(seconds)})


if __name__ == "__main__":
    app()
