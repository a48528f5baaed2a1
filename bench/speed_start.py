"""What the pipeline itself costs: starting a stage, a run with nothing to do, a sweep."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from bench.settings import write_changed
from bench.timing import Measure, spread
from bench.workload import Workload

TAUS = [round(0.1 * step, 1) for step in range(1, 9)]
ROUNDS = 5


def start(work: Workload, folder: Path) -> Iterator[Measure]:
    """How soon a stage says what it can do."""
    seconds = []
    for _ in range(ROUNDS if work.seconds else 1):
        clock = time.perf_counter()
        _run([sys.executable, "-m", "stages.train", "--help"], Path.cwd())
        seconds.append(time.perf_counter() - clock)
    yield spread("start", "python -m stages.train --help", seconds, target=1.0, unit="s")


def repro(work: Workload, folder: Path) -> Iterator[Measure]:
    """`dvc repro` with nothing to do, and which stages a sweep of carb.tau would run."""
    clone = finished_clone(folder / "clone")
    seconds = []
    for _ in range(ROUNDS if work.seconds else 1):
        clock = time.perf_counter()
        _run(["dvc", "repro"], clone)
        seconds.append(time.perf_counter() - clock)
    yield spread("repro", "`dvc repro` with nothing to do", seconds, target=3.0, unit="s")
    stages: list[str] = []
    for tau in TAUS if work.seconds else TAUS[:1]:
        write_changed(Path("params.yaml"), clone / "params.yaml", {"carb.tau": tau})
        stages += re.findall(r"Running stage '(\w+)'", _run(["dvc", "repro", "--dry"], clone))
    yield spread(
        "repro",
        f"runs of CLIP in a sweep of carb.tau over {len(TAUS)} values",
        [stages.count("pseudo")],
        target=0,
        details={name: stages.count(name) for name in sorted(set(stages))},
    )


def finished_clone(clone: Path) -> Path:
    """A clone of this repository with the outputs that its dvc.lock names, out of DVC's cache.

    Raises:
        ValueError: they are not in the cache.
    """
    here = Path.cwd()
    _run(["git", "clone", "-q", "--shared", str(here), str(clone)], here)
    _run(["dvc", "config", "--local", "cache.dir", str(here / ".dvc" / "cache")], clone)
    try:
        _run(["dvc", "checkout", "--quiet"], clone)
        finished = _run(["dvc", "status", "--json"], clone).strip() == "{}"
    except ValueError:
        finished = False
    if not finished:
        raise ValueError(
            "DVC's cache lacks the outputs of HEAD; run `dvc repro` and commit dvc.lock first"
        )
    return clone


def _run(line: list[str], folder: Path) -> str:
    beside = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True, env=os.environ | beside)
    if done.returncode:
        raise ValueError(f"{' '.join(line)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout
