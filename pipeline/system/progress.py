"""Progress reporting (a bar on a terminal, lines in a log), prefetching, copies to the CPU."""

import logging
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple, TextIO, TypeVar

from pipeline.system.stop import Interrupted, stop_requested

if TYPE_CHECKING:  # torch takes seconds to import; `--help` must not
    import torch

log = logging.getLogger("carb")
S = TypeVar("S")
T = TypeVar("T")
READERS = 4  # threads that decode photos
MIN_LOG_S, MAX_LOG_S = 10, 600  # between two lines of a log
GROWTH = 0.1  # of the time so far: lines of a long run become rarer


class StderrHandler(logging.StreamHandler[TextIO]):
    """Log to the current ``sys.stderr``, which rich replaces to put lines above a bar."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line."""
        self.stream = sys.stderr
        super().emit(record)


class _Work(NamedTuple):
    label: str
    total: int
    done: int
    unit: str
    images: int | None
    details: Callable[[], str] | None
    costs: Sequence[float] | None

    def cost(self, first: int, end: int) -> float:
        """Time that some of this run's items take, in units of their mean."""
        return sum(self.costs[first:end]) if self.costs else end - first

    def more(self) -> str:
        """What else to show; empty for nothing."""
        return self.details() if self.details else ""

    def speed(self, count: int, seconds: float) -> str:
        """``2.4 steps/s, 29 images/s`` for ``count`` items."""
        if count == 0:
            return "nothing to do"
        rate = count / max(seconds, 1e-9)
        rates = {self.unit: rate} | ({"images": rate * self.images} if self.images else {})
        return ", ".join(f"{_rate(value)} {unit}/s" for unit, value in rates.items())


def progress(
    items: Iterable[T],
    *,
    label: str,
    total: int,
    done: int = 0,
    stops: bool = True,
    unit: str = "images",
    images: int | None = None,
    details: Callable[[], str] | None = None,
    costs: Sequence[float] | None = None,
) -> Iterator[T]:
    """Pass ``items`` through and show progress: a bar on a terminal, else lines in the log.

    Args:
        items: the items to work on.
        label: name of the work, one or two words.
        total: number of all items.
        done: number of items that an earlier run finished.
        stops: raise after the current item when a stop is requested; False if the caller does.
        unit: name of the items, in the plural.
        images: images per item (of a training step: its batch), shown as a second rate.
        details: called for what else to show, such as the current loss.
        costs: relative time of each of ``items``, for the remaining time; None: all alike.

    Raises:
        Interrupted: a stop was requested.
    """
    shares = costs and _relative(costs)
    work = _Work(label, total, done, unit, images, details, shares)
    shown = iter(items)
    if log.level <= logging.INFO:  # else another process of the run reports
        shown = _bar(items, work) if sys.stderr.isatty() else _log_lines(items, work)
    for count, item in enumerate(shown, start=done + 1):
        yield item
        if stops and stop_requested():
            raise Interrupted(f"{label} {count}/{total}")


def _relative(costs: Sequence[float]) -> list[float]:
    """Costs divided by their mean."""
    mean = sum(costs) / len(costs)
    return [cost / mean for cost in costs]


def _log_lines(items: Iterable[T], work: _Work) -> Iterator[T]:
    start = last = time.monotonic()
    place = work.done
    for place, item in enumerate(items, start=work.done + 1):
        yield item
        now = time.monotonic()
        if now - last >= min(max(MIN_LOG_S, GROWTH * (now - start)), MAX_LOG_S):
            count, last = place - work.done, now
            share = work.cost(count, work.total - work.done) / work.cost(0, count)
            left = duration_text((now - start) * share)
            speed = work.speed(count, now - start)
            values = (work.label, place, work.total, speed, left, _after("; ", work.more()))
            log.info("%s %d/%d: %s, %s left%s", *values)
    seconds = time.monotonic() - start
    speed = work.speed(place - work.done, seconds) + _after("; ", work.more())
    log.info("%s %d/%d done in %s, %s", *work[:1], place, work.total, duration_text(seconds), speed)


def _bar(items: Iterable[T], work: _Work) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn
    from rich.progress import TimeRemainingColumn as TimeRemaining
    from rich.table import Column

    console = Console(stderr=True)
    short = work.details is not None  # then the text takes the space, cut off at the line's end
    last = Column(no_wrap=True, overflow="ellipsis", ratio=1 if short else None)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=min(max(4, console.width - 100), 40) if short else None),
        TextColumn("{task.fields[count]}/" + str(work.total)),
        TimeRemaining(elapsed_when_finished=True),
        TextColumn("{task.fields[text]}", table_column=last),
    )
    start = time.monotonic()
    with Progress(*columns, console=console, expand=True) as bar:
        done = work.done
        task = bar.add_task(work.label, total=work.total, completed=done, text="", count=done)
        for count, item in enumerate(items, start=1):
            yield item
            text = _after("", work.more(), ", ") + work.speed(count, time.monotonic() - start)
            cost = work.cost(count - 1, count)
            bar.update(task, advance=cost, text=text, count=done + count)


def _after(before: str, text: str, after: str = "") -> str:
    """A text with separators; nothing for an empty text."""
    return f"{before}{text}{after}" if text else ""


def _rate(rate: float) -> str:
    """A rate with two or three digits."""
    return f"{rate:.0f}" if rate >= 99.5 else f"{rate:.1f}" if rate >= 0.95 else f"{rate:.2g}"


def duration_text(seconds: float) -> str:
    """A time in words: ``4.2 s``, ``42 s``, ``12 min``, ``3 h 05 min``."""
    if seconds < 120:
        return f"{seconds:.1f} s" if seconds < 9.95 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60:02d} min"


def prefetch_in_threads(
    items: Iterable[S], work: Callable[[S], T], *, threads: int = READERS
) -> Iterator[T]:
    """Map ``work`` over items in threads, a few items ahead of the caller; results in order.

    For reading and decoding, which release Python's lock, while the caller keeps the device busy.
    An exception of ``work`` is raised in place of its result.

    Args:
        items: arguments of ``work``.
        work: function of one item.
        threads: number of threads; twice as many results may wait.
    """
    left, pool = iter(items), ThreadPoolExecutor(threads)
    waiting: deque[Future[T]] = deque(pool.submit(work, item) for item in islice(left, 2 * threads))
    try:
        while waiting:
            result = waiting.popleft().result()
            waiting.extend(pool.submit(work, item) for item in islice(left, 1))
            yield result
    finally:
        pool.shutdown(cancel_futures=True)


def copy_to_cpu_async(tensor: "torch.Tensor") -> "Callable[[], torch.Tensor]":
    """Start to copy a tensor to the CPU; calling the result waits for the copy and returns it."""
    import torch

    if tensor.device.type != "cuda":
        return tensor.cpu
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    copy.copy_(tensor, non_blocking=True)
    copied: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    copied.record()

    def wait() -> torch.Tensor:
        copied.synchronize()
        return copy

    return wait


def stream_to_cpu(tensors: "Iterable[torch.Tensor]") -> "Iterator[torch.Tensor]":
    """Copy tensors to the CPU, each while the device computes the next one."""
    last: Callable[[], torch.Tensor] | None = None
    for tensor in tensors:
        copied = copy_to_cpu_async(tensor)
        if tensor.device.type != "cuda":  # nothing to overlap: no tensor is held back
            yield copied()
            continue
        if last is not None:
            yield last()
        last = copied
    if last is not None:
        yield last()
