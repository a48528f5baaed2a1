"""Interleaved timing of alternatives: results are ratios, because a machine's speed drifts."""

import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from typing import Any

Seconds = dict[str, list[float]]  # contestant -> seconds of each round


@dataclass(frozen=True)
class Measure:
    """One result of a benchmark.

    Attributes:
        bench: name of the benchmark.
        what: what is compared.
        value, low, high: median, smallest and largest over the rounds.
        rounds: number of measurements.
        target: bound of the value; None: no target.
        at_least: whether the target is a lower bound instead of an upper one.
        unit: of the value; empty for a ratio.
        details: further values for the JSON file.
    """

    bench: str
    what: str
    value: float
    low: float
    high: float
    rounds: int
    target: float | None
    at_least: bool = False
    unit: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def met(self) -> bool | None:
        """Whether the value reaches its target; None without a target."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


def race(
    contestants: Mapping[str, Callable[[], object]],
    *,
    wait: Callable[[], object],
    seconds: float,
    least: int,
    settle: Callable[[str], object] = lambda name: None,
) -> Seconds:
    """Time the contestants in turn, in a different order per round, after one warm-up round.

    Args:
        contestants: name -> one unit of the work.
        wait: waits for the device; the clock stops after it.
        seconds: no new round starts after this time.
        least: minimum number of rounds.
        settle: called with the name of each contestant before it, not timed.

    Returns:
        the seconds of each round, by contestant.
    """
    names, times = list(contestants), {name: list[float]() for name in contestants}
    for name in names:
        contestants[name]()
    wait()
    start, count = time.perf_counter(), 0
    while count < least or time.perf_counter() - start < seconds:
        for name in names[count % len(names) :] + names[: count % len(names)]:
            settle(name)
            clock = time.perf_counter()
            contestants[name]()
            wait()
            times[name].append(time.perf_counter() - clock)
        count += 1
    return times


def ratio(bench: str, what: str, times: Seconds, *, of: str, to: str, **options: Any) -> Measure:
    """Ratio of the time of ``of`` to that of ``to``, round by round; options as `summarise`."""
    rounds = [a / b for a, b in zip(times[of], times[to], strict=True)]
    median = {f"{name}, s": round(statistics.median(each), 4) for name, each in times.items()}
    details = median | dict(options.pop("details", {}))
    return summarise(bench, what, rounds, details=details, **options)


def summarise(
    bench: str,
    what: str,
    values: list[float],
    *,
    target: float | None,
    at_least: bool = False,
    unit: str = "",
    details: Mapping[str, Any] | None = None,
) -> Measure:
    """Median and range of repeated measurements."""
    middle, low, high = statistics.median(values), min(values), max(values)
    rest = (len(values), target, at_least, unit, dict(details or {}))
    return Measure(bench, what, middle, low, high, *rest)


def in_own_process(function: Any, *arguments: Any) -> Any:
    """Call a module's function in a fresh process: its environment and memory are its own."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def processor() -> str:
    """The processor's name and number of cores."""
    try:
        with open("/proc/cpuinfo") as lines:
            name = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        name = platform.processor()
    return f"{name}, {os.cpu_count()} cores"
