"""How torch's threads wait for each other on a CPU that other programs use, too.

torch's wheels bring GNU libgomp, whose threads wait by spinning, for up to 300 000 turns. That is
fastest on an idle machine; where another program takes a core, the thread that has the work waits
for one that spins. While a process has more OpenMP threads than cores, libgomp spins for 100 turns
only (``do_spin`` in its wait.h). So this process gets additional OpenMP threads, which sleep, for
as long as its threads have to wait for a core. The number of threads that share an operation, and
with it every sum, stays the same.
"""

import functools
import math
import os
import threading
from pathlib import Path
from time import monotonic

TASKS = Path("/proc/self/task")
CHOSEN = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")  # libgomp reads from them how threads wait
SECONDS = 1.0  # between two readings
# Seconds per second that this process's threads wait for a core: 0.2 with the loader's process as
# the only other one; 0.6 beside one busy program.
BUSY, IDLE = 0.4, 0.2


@functools.cache
def share_cores() -> None:
    """Shorten spinning while other programs need the cores; once per process, in the background.

    For training, whose images are decoded by other processes: own threads that decode are load,
    too.

    Does nothing with a single thread, without Linux's counters, or where the environment says how
    threads wait.
    """
    import torch

    threads = torch.get_num_threads()
    if threads > 1 and TASKS.is_dir() and not any(name in os.environ for name in CHOSEN):
        cores = len(os.sched_getaffinity(0))
        pools = max(1, math.ceil((cores + 1 - threads) / (threads - 1)))
        threading.Thread(target=_watch, args=(pools,), daemon=True).start()


def _watch(pools: int) -> None:
    pause, ended = threading.Event(), None
    before, clock = _seconds_waited(), monotonic()
    while not pause.wait(SECONDS):
        waited, now = _seconds_waited(), monotonic()
        share, before, clock = (waited - before) / (now - clock), waited, now
        if share > BUSY and ended is None:
            ended = _sleeping_threads(pools)
        elif share < IDLE and ended is not None:
            ended.set()
            ended = None


def _seconds_waited() -> float:
    """Time for which threads of this process were ready to run and had no core."""
    nanoseconds = 0
    for task in TASKS.iterdir():
        try:
            nanoseconds += int((task / "schedstat").read_text().split()[1])
        except (OSError, IndexError):  # the thread has ended
            continue
    return nanoseconds / 1e9


def _sleeping_threads(pools: int) -> threading.Event:
    """Start threads with a pool of OpenMP threads each; all end after the event that it returns."""
    import torch

    ended = threading.Event()

    def sleep() -> None:
        torch.ones(2**18).add_(1)  # large enough to be shared, which starts the pool
        ended.wait()

    for _ in range(pools):
        threading.Thread(target=sleep, daemon=True).start()
    return ended
