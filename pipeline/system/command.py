"""What every stage needs of the machine: progress, threads, precision, devices, clear failure."""

import functools
import logging
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, NoReturn, ParamSpec, TypeVar

from pipeline.system.devices import make_fabric, silence_other_ranks
from pipeline.system.launch import (
    LOST,
    another_stopped,
    check_gpus,
    exit_process,
    is_distributed,
    launch_of,
    watch_parent,
)
from pipeline.system.own_errors import sentence_of
from pipeline.system.progress import AboveTheBar, Meter, metered
from pipeline.system.stop import Interrupted, graceful_shutdown, stop_requested
from pipeline.system.streams import lasting_streams

if TYPE_CHECKING:  # torch and Fabric take seconds to import; `--help` must not
    import torch
    from lightning_fabric import Fabric

log = logging.getLogger("carb")
P = ParamSpec("P")
S = TypeVar("S")
T = TypeVar("T")
READERS = 4  # threads that decode photos
# What torch says of a GPU, of a CPU, and of a loader's process that the system has ended.
_NO_MEMORY = [
    "out of memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "ALLOC_FAILED",
    "is killed by signal: Killed",
    "is killed by signal: Bus error",
]


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


@contextmanager
def memory_hint(advice: str) -> Iterator[None]:
    """Say which parameter to lower where a GPU or a process has not enough memory.

    Args:
        advice: what to do, in words.

    Raises:
        ValueError: there was not enough memory.
    """
    try:
        yield
    except (MemoryError, RuntimeError, OSError) as error:  # torch's own type is a RuntimeError
        said = str(error)
        if not isinstance(error, MemoryError) and not any(sign in said for sign in _NO_MEMORY):
            raise
        first = said.splitlines()[0][:120] if said else type(error).__name__
        raise ValueError(f"out of memory ({first}); {advice}") from None


def command(function: Callable[P, T]) -> Callable[P, T]:
    """Make a function a good command line: log lines, and a sentence in place of a traceback.

    The ``ValueError`` that this project raises, and what the system says of files, are what users
    and their disks cause: they print as ``error: <sentence>`` and end the process with exit code 2.
    A request to stop ends it between two pieces of work (`pipeline.system.stop`). Anything else is
    our own fault and keeps its traceback, also the ``ValueError`` of a library.
    """

    @functools.wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[AboveTheBar()])
        log.setLevel(logging.INFO)
        with lasting_streams(), graceful_shutdown():
            try:
                made = function(*args, **kwargs)
                sys.stdout.flush()
                return made
            except Interrupted as error:
                _stop(error)
            except (ValueError, OSError) as error:
                said = sentence_of(error, function.__code__)
                if said is None:
                    raise
                print(f"error: {said}", file=sys.stderr)
                exit_process(2)
            except RuntimeError as error:
                if not (is_distributed() and another_stopped(error)):
                    raise
                if stop_requested():  # and so were the others
                    _stop(Interrupted("with all its processes"))
                print(f"error: {LOST}", file=sys.stderr)
                exit_process(2)

    return run


def _stop(error: Interrupted) -> NoReturn:
    """End a process that was asked to; the first one of a run tells it, for all."""
    if log.level > logging.INFO:
        exit_process(0)  # with another code a launcher would kill the first one at its last words
    print(error, file=sys.stderr)
    exit_process(error.code)


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
    if launch.single:
        return make_fabric(launch, accelerator, pick_precision(precision, accelerator))
    watch_parent(launch)
    fabric = make_fabric(launch, accelerator, "32-true")
    silence_other_ranks(fabric)
    # One process measures, for all: while the others wait, and before anything depends on it.
    picked = pick_precision(precision, accelerator) if fabric.global_rank == 0 else ""
    return make_fabric(launch, accelerator, fabric.broadcast(picked))
