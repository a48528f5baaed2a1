"""Speed of the demo's training step while another program keeps one core busy."""

import multiprocessing
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from unittest.mock import patch

from bench.speed_training import demo_network, learner_of, loader_of
from bench.timing import Measure, in_own_process, ratio
from bench.workload import Workload, draw_street, random_clip
from pipeline.system.devices import start_fabric
from pipeline.system.waiting import SECONDS, share_cores

ADAPTED = 2.5 * SECONDS  # after a change of the load
# Environments in which a process trains: libgomp reads them when torch is imported.
WAYS = {
    "as it is": {},
    "always spinning": {"GOMP_SPINCOUNT": "300000"},  # libgomp's default
    "never spinning long": {"GOMP_SPINCOUNT": "100"},
    "one thread": {"OMP_NUM_THREADS": "1"},
}
COMPARED = [  # what, step, step to compare it with, largest ratio wanted
    ("beside a busy program, relative to an idle machine", "as it is, busy", "as it is, idle", 1.7),
    ("beside a busy program, relative to one thread", "as it is, busy", "one thread, busy", 1.15),
    (
        "beside a busy program, relative to 100 turns of spinning",
        *("as it is, busy", "never spinning long, busy", 1.15),
    ),
    (
        "on an idle machine, relative to always spinning",
        *("as it is, idle", "always spinning, idle", 1.0),
    ),
]
ROUNDS = 3


def busy(work: Workload, folder: Path) -> Iterator[Measure]:
    """Time of a step beside a busy program, against an idle machine and other ways of waiting."""
    times: dict[str, list[float]] = {}
    for round_number in range(ROUNDS if work.seconds else 1):
        for way, environment in WAYS.items():
            with patch.dict(os.environ, environment):
                found = in_own_process(
                    seconds_of_a_step, folder / f"{way} {round_number}", work.seconds / 3
                )
            for load, seconds in found.items():
                times.setdefault(f"{way}, {load}", []).append(seconds)
    for what, of, to, target in COMPARED:
        words = f"time of the demo's training step {what}"
        yield ratio("busy", words, times, of=of, to=to, target=target)


def seconds_of_a_step(folder: Path, seconds: float) -> dict[str, float]:
    """Seconds of a step on an idle machine and beside a busy program; runs in its own process.

    Args:
        folder: for the drawn images and their pseudo-masks.
        seconds: of each measurement; 0: a single step.
    """
    street = draw_street(folder, train=8)
    train = street.params.train
    share_cores()  # as `fit` does
    learner = learner_of(start_fabric(train.precision), demo_network(street), train)
    batch = next(iter(loader_of(street, random_clip(""), learner.fabric)))

    def learn_for(limit: float) -> float:
        count, clock = 0, time.perf_counter()
        while count == 0 or time.perf_counter() - clock < limit:
            learner.learn(batch)
            count += 1
        return (time.perf_counter() - clock) / count

    found = {}
    for load in ("idle", "busy"):
        with _busy_program() if load == "busy" else nullcontext():
            learn_for(min(seconds, ADAPTED))
            found[load] = learn_for(seconds)
    return found


@contextmanager
def _busy_program() -> Iterator[None]:
    program = multiprocessing.get_context("spawn").Process(target=_spin, daemon=True)
    program.start()
    try:
        yield
    finally:
        program.kill()


def _spin() -> None:
    while True:
        pass
