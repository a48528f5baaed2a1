"""What every stage needs of the machine: whole files, digests, progress, precision, clear
failure."""

import functools
import hashlib
import json
import logging
import math
import os
import shutil
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from pipeline.launch import LOST, another_stopped, check_gpus, keep_together, launch_of, make_fabric

if TYPE_CHECKING:  # torch and Fabric take seconds to import; `--help` must not
    import torch
    from lightning_fabric import Fabric

log = logging.getLogger("carb")
P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")
READERS = 4  # threads that decode photos


def _sync(path: Path) -> None:
    """Flush a file or a directory (with all below it) to the disk.

    Files get the mode that the user's umask gives: safetensors makes them the owner's alone.
    """
    umask = os.umask(0)
    os.umask(umask)
    for entry in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if entry.is_file() and not entry.is_symlink():
            entry.chmod(0o666 & ~umask)
        handle = os.open(entry, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def remove(path: Path) -> None:
    """Delete a file, link or directory, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` to write to; it takes the place of ``path`` only if all went
    well.

    Readers see the old content or the new, never a half. Works for a file and for a directory. An
    existing ``path`` may be a link into DVC's cache: it is replaced, never written through.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.draft")
    remove(draft)
    try:
        yield draft
        _sync(draft)
        if draft.is_dir() and os.path.lexists(path):  # rename() replaces files, not directories
            old = path.with_name(f".{path.name}.old")
            remove(old)
            path.rename(old)
            draft.rename(path)
            remove(old)
        else:
            draft.replace(path)
    finally:
        remove(draft)


def _finite(value: Any) -> Any:
    """Replace NaN (a class that never occurs) by None: JSON has no NaN."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write_json(path: Path, content: Any) -> None:
    """Write JSON whole or not at all; NaN becomes null."""
    with atomic_path(path) as draft:
        draft.write_text(json.dumps(_finite(content), indent=2, allow_nan=False) + "\n", "utf-8")


def file_digest(path: Path) -> str:
    """SHA-256 of a file's bytes, hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()


def fingerprint(content: Any) -> str:
    """SHA-256 of a JSON-able value, whatever the order of its keys."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def progress(items: Iterable[T], *, label: str, total: int, done: int = 0) -> Iterator[T]:
    """Pass ``items`` through and show how far we are: a bar on a terminal, a line each 10 s in a
    log.

    Args:
        items: what is worked through.
        label: what the work is, one or two words.
        total: number of items of the whole work.
        done: how many were done before (a resumed run).
    """
    if log.level > logging.INFO:  # another process of the run tells it
        yield from items
        return
    if sys.stderr.isatty():
        yield from _progress_bar(items, label, total, done)
        return
    start = spoken = time.monotonic()
    count = done
    for count, item in enumerate(items, start=done + 1):
        yield item
        now = time.monotonic()
        if now - spoken >= 10:
            rate = (count - done) / (now - start)
            left_s = (total - count) / rate
            log.info("%s %d/%d, %.1f/s, %.0f s left", label, count, total, rate, left_s)
            spoken = now
    log.info("%s %d/%d done in %.1f s", label, count, total, time.monotonic() - start)


def _progress_bar(items: Iterable[T], label: str, total: int, done: int) -> Iterator[T]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(label, total=total, completed=done)
        for item in items:
            yield item
            bar.advance(task)


def ahead(items: Iterable[S], work: Callable[[S], T], *, threads: int = READERS) -> Iterator[T]:
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


def fetched(made: "Iterable[torch.Tensor]") -> "Iterator[torch.Tensor]":
    """Bring tensors to the CPU, each while the device makes the next one."""
    import torch

    last: tuple[torch.Tensor, torch.cuda.Event] | None = None
    for tensor in made:
        if tensor.device.type != "cuda":
            yield tensor.cpu()
            continue
        copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        copy.copy_(tensor, non_blocking=True)
        there: torch.cuda.Event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        there.record()
        if last is not None:
            last[1].synchronize()
            yield last[0]
        last = copy, there
    if last is not None:
        last[1].synchronize()
        yield last[0]


def command(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function a good command line: log lines, and a sentence in place of a traceback.

    ``ValueError`` and ``OSError`` are what users and their disks cause: they print as
    ``error: <sentence>`` and end the process with exit code 2. Anything else is our own fault and
    keeps its traceback.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        logging.basicConfig(level=logging.WARNING, format="%(message)s", stream=sys.stderr)
        log.setLevel(logging.INFO)
        try:
            return function(*args, **kwargs)
        except (ValueError, OSError) as error:
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            raise SystemExit(2) from None
        except RuntimeError as error:
            if not another_stopped(error):
                raise
            print(f"error: {LOST}", file=sys.stderr)
            raise SystemExit(2) from None

    return run


@functools.cache
def pick_precision(wanted: str, device_type: str) -> str:
    """Resolve ``auto`` to the precision that pays on this machine: ``bf16-mixed`` or ``32-true``.

    On a GPU the hardware says whether it multiplies in bfloat16. A CPU is timed: a processor may
    have bfloat16 instructions and still be slower with them.
    """
    import torch

    if wanted != "auto":
        return wanted
    if device_type == "cuda":
        pays = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        pays = _matmul_s(torch.bfloat16) < 0.8 * _matmul_s(torch.float32)
    return "bf16-mixed" if pays else "32-true"


def _matmul_s(dtype: "torch.dtype") -> float:
    """Best time of a matrix product of a small network's size, in seconds."""
    import torch

    a, b = torch.ones(2048, 512, dtype=dtype), torch.ones(512, 512, dtype=dtype)
    times = []
    for _ in range(15):
        start = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - start)
    return min(times)


def best_device() -> "torch.device":
    """A GPU if there is one, else the CPU."""
    import torch

    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def start_fabric(precision: str) -> "Fabric":
    """Start Lightning Fabric on whatever the machine offers: CPU, one GPU, many GPUs, many nodes.

    How many devices is the launcher's business (``torchrun``, SLURM, or the environment variable
    ``CARB_DEVICES``), never that of ``params.yaml``: it does not change the result. On a CPU each
    run gives the same bytes.

    Args:
        precision: ``auto``, ``bf16-mixed`` or ``32-true``.

    Raises:
        ValueError: the number of devices makes no sense here.
    """
    import torch

    torch.use_deterministic_algorithms(True, warn_only=torch.cuda.is_available())
    accelerator, launch = best_device().type, launch_of(os.environ)
    if accelerator == "cuda":
        check_gpus(launch, torch.cuda.device_count())
    if launch.alone:
        return make_fabric(launch, accelerator, pick_precision(precision, accelerator))
    fabric = make_fabric(launch, accelerator, "32-true")
    keep_together(fabric, launch)
    # One process measures, for all: while the others wait, and before anything depends on it.
    picked = pick_precision(precision, accelerator) if fabric.global_rank == 0 else ""
    return make_fabric(launch, accelerator, fabric.broadcast(picked))
