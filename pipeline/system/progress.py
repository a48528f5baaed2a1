"""Progress of long work: a bar on a terminal, lines in a log; and prefetching in threads."""

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, TextIO, TypeVar

from pipeline.system.stop import Interrupted, stop_requested

if TYPE_CHECKING:  # torch and Fabric take seconds to import; `--help` must not
    import torch

log = logging.getLogger("carb")


T = TypeVar("T")


FIRST_LINE_S = 10  # between two lines of a log; a long run speaks less and less often


GROWTH = 0.1  # of the time that has passed


LONGEST_S = 600


@dataclass
class Meter:
    """Counts what is done and says how fast that goes.

    Attributes:
        label: what the work is, one or two words.
        total: number of items of the whole work.
        done: how many are done; at the start, how many were done before.
        unit: what the items are, in the plural.
        images: photos an item, where the items are something else.
    """

    label: str
    total: int
    done: int
    unit: str
    images: int | None
    start: float = field(default_factory=lambda: time.monotonic())

    def __post_init__(self) -> None:
        self._before = self.done

    def speed(self, now: float) -> str:
        """Rates and the time left, as ``2.4 steps/s, 29 images/s, 3 min left``."""
        if self.done == self._before:
            return "nothing to do"
        rate = (self.done - self._before) / max(now - self.start, 1e-9)
        words = [f"{_short(rate)} {self.unit}/s"]
        if self.images is not None:
            words.append(f"{_short(rate * self.images)} images/s")
        if self.done < self.total:
            words.append(f"{duration((self.total - self.done) / rate)} left")
        return ", ".join(words)


def _short(rate: float) -> str:
    """A rate with two or three digits."""
    return f"{rate:.0f}" if rate >= 99.5 else f"{rate:.1f}" if rate >= 0.95 else f"{rate:.2g}"


def duration(seconds: float) -> str:
    """A time in words: ``4.2 s``, ``42 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


class AboveTheBar(logging.StreamHandler[TextIO]):
    """Writes to what ``sys.stderr`` is at the moment: while a bar is shown, rich takes lines there
    and puts them above it."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        self.stream = sys.stderr
        super().emit(record)


def metered(items: Iterable[T], meter: Meter) -> Iterator[T]:
    """Pass items through and show how far the work is, where there is somebody to show it to."""
    if log.level > logging.INFO:  # another process of the run tells it
        return iter(items)
    return _bar(items, meter) if sys.stderr.isatty() else _lines(items, meter)


def _lines(items: Iterable[T], meter: Meter) -> Iterator[T]:
    spoken = meter.start
    for item in items:
        yield item
        meter.done += 1
        now = time.monotonic()
        if now - spoken >= min(max(FIRST_LINE_S, GROWTH * (now - meter.start)), LONGEST_S):
            log.info("%s %d/%d: %s", meter.label, meter.done, meter.total, meter.speed(now))
            spoken = now
    now = time.monotonic()
    passed, speed = duration(now - meter.start), meter.speed(now)
    log.info("%s %d/%d done in %s, %s", meter.label, meter.done, meter.total, passed, speed)


def _bar(items: Iterable[T], meter: Meter) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[speed]}"),
    )
    with Progress(*columns, console=Console(stderr=True), expand=True) as bar:
        task = bar.add_task(meter.label, total=meter.total, completed=meter.done, speed="")
        for item in items:
            yield item
            meter.done += 1
            bar.update(task, advance=1, speed=meter.speed(time.monotonic()))


S = TypeVar("S")


READERS = 4  # threads that decode photos


def progress(
    items: Iterable[T],
    *,
    label: str,
    total: int,
    done: int = 0,
    stops: bool = True,
    unit: str = "images",
    images: int | None = None,
) -> Iterator[T]:
    """Pass ``items`` through and show how far we are: a bar on a terminal, a line now and then in a
    log, with the rate and the time left.

    Args:
        items: what is worked through.
        label: what the work is, one or two words.
        total: number of items of the whole work.
        done: how many were done before (a resumed run).
        stops: a request to stop is heard here, between two items; False where the caller hears it.
        unit: what the items are, in the plural.
        images: photos an item (of a training step: its batch), told as a second rate.

    Raises:
        StoppedError: the run was asked to stop.
    """
    shown = metered(items, Meter(label, total, done, unit, images))
    for count, item in enumerate(shown, start=done + 1):
        yield item
        if stops and stop_requested():
            raise Interrupted(f"{label} {count}/{total}")


def prefetch_in_threads(
    items: Iterable[S], work: Callable[[S], T], *, threads: int = READERS
) -> Iterator[T]:
    """Work on items in threads, a few ahead of what is asked for; results come in order.

    For reading and decoding, which leave Python's lock alone, while the caller keeps the device
    busy. What ``work`` raises is raised where its result would come.

    Args:
        items: what is worked on.
        work: of one item.
        threads: how many at a time; twice as many results may wait.
    """
    left, pool = iter(items), ThreadPoolExecutor(threads)
    waiting: deque[Future[T]] = deque(pool.submit(work, item) for item in islice(left, 2 * threads))
    try:
        while waiting:
            done = waiting.popleft().result()
            waiting.extend(pool.submit(work, item) for item in islice(left, 1))
            yield done
    finally:
        pool.shutdown(cancel_futures=True)


def copy_to_cpu_async(tensor: "torch.Tensor") -> "Callable[[], torch.Tensor]":
    """Start to bring a tensor to the CPU; what is returned waits for it and gives it."""
    import torch

    if tensor.device.type != "cuda":
        return tensor.cpu
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    copy.copy_(tensor, non_blocking=True)
    there: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    there.record()

    def wait() -> torch.Tensor:
        there.synchronize()
        return copy

    return wait


def stream_to_cpu(made: "Iterable[torch.Tensor]") -> "Iterator[torch.Tensor]":
    """Bring tensors to the CPU, each while the device makes the next one."""
    last: Callable[[], torch.Tensor] | None = None
    for tensor in made:
        if tensor.device.type != "cuda":
            yield tensor.cpu()
            continue
        coming = copy_to_cpu_async(tensor)
        if last is not None:
            yield last()
        last = coming
    if last is not None:
        yield last()
