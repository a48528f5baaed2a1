"""Two ways of doing the same, timed in turn: figures are ratios, for a machine's speed drifts."""

import os
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

Seconds = dict[str, list[float]]  # of each contestant, round by round


@dataclass(frozen=True)
class Measure:
    """One line of the report.

    Attributes:
        bench: name of the bench that measured it.
        what: what is compared.
        value: the figure; the median, where it was measured several times.
        low, high: the smallest and the largest of them.
        rounds: how often it was measured.
        target: what the figure should reach; None: it is told without one.
        at_least: whether the target is a lower bound; else an upper one.
        unit: of the figure; empty for a ratio.
        details: what else a reader wants to know.
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
        """Whether the figure reaches its target; None without one."""
        if self.target is None:
            return None
        return self.value >= self.target if self.at_least else self.value <= self.target


def race(
    contestants: Mapping[str, Callable[[], object]],
    *,
    wait: Callable[[], object],
    seconds: float,
    least: int,
    settle: Callable[[], object] = lambda: None,
) -> Seconds:
    """Time contestants in turn, each round in another order, after one round unheeded.

    Args:
        contestants: name -> one unit of the work.
        wait: waits for the device; the clock stops after it.
        seconds: no new round starts after so long.
        least: rounds that are run in any case.
        settle: called before each contestant, not timed: lets work behind the scenes end.

    Returns:
        for each contestant the seconds of each round.
    """
    names, times = list(contestants), {name: list[float]() for name in contestants}
    for name in names:
        contestants[name]()
    wait()
    start, count = time.perf_counter(), 0
    while count < least or time.perf_counter() - start < seconds:
        for name in names[count % len(names) :] + names[: count % len(names)]:
            settle()
            clock = time.perf_counter()
            contestants[name]()
            wait()
            times[name].append(time.perf_counter() - clock)
        count += 1
    return times


def ratio(
    bench: str,
    what: str,
    times: Seconds,
    *,
    of: str,
    to: str,
    target: float | None,
    at_least: bool = False,
    details: Mapping[str, Any] | None = None,
) -> Measure:
    """How many times as long ``of`` took as ``to``, round by round."""
    rounds = [a / b for a, b in zip(times[of], times[to], strict=True)]
    median = {f"{name}, s": round(statistics.median(each), 4) for name, each in times.items()}
    told = median | dict(details or {})
    return spread(bench, what, rounds, target=target, at_least=at_least, details=told)


def spread(
    bench: str,
    what: str,
    values: list[float],
    *,
    target: float | None,
    at_least: bool = False,
    unit: str = "",
    details: Mapping[str, Any] | None = None,
) -> Measure:
    """A figure that was measured several times."""
    return Measure(
        bench,
        what,
        statistics.median(values),
        min(values),
        max(values),
        len(values),
        target,
        at_least,
        unit,
        dict(details or {}),
    )


def peak_mib() -> float:
    """Most memory that this process ever held, by the operating system, in MiB."""
    status = Path("/proc/self/status")
    if status.exists():  # what getrusage tells on Linux includes the process that started this one
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


def processor() -> str:
    """The processor's name, as the system tells it."""
    try:
        with open("/proc/cpuinfo") as lines:
            name = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    except (OSError, StopIteration):
        import platform

        name = platform.processor()
    return f"{name}, {os.cpu_count()} cores"
