"""Threads of torch that spin less while other programs need the cores."""

import json
import os
import subprocess
import sys

import pytest

from pipeline.system.waiting import TASKS

PROGRAM = """
import json, time, torch
from pipeline.system import waiting

waits = 0.0  # seconds per second, as Linux would count them
waiting.SECONDS = 0.01
waiting._seconds_waited = lambda: waits * time.monotonic()
numbers = torch.rand(2**20)

def cpu_share():
    # In the pauses the second thread spins, or sleeps.
    time.sleep(0.2)
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in range(100):
        numbers.mul(2)
        time.sleep(0.002)
    return (time.process_time() - cpu) / (time.perf_counter() - wall)

waiting.share_cores()
found = {}
for name, waits in (("idle", 0.0), ("busy", 1.0), ("idle again", 0.0)):
    found[name] = [cpu_share(), float(numbers.sum()), torch.get_num_threads()]
print(json.dumps(found))
"""


@pytest.mark.skipif(not TASKS.is_dir(), reason="counters of Linux")
@pytest.mark.parametrize("policy", [None, "active"])
def test_threads_spin_less_while_others_need_the_cores(policy: str | None) -> None:
    """CPU time tells spinning from sleeping; sums stay; a person's own choice is left alone."""
    two = {"OMP_NUM_THREADS": "2"} | ({} if policy is None else {"OMP_WAIT_POLICY": policy})
    rest = {
        name: value
        for name, value in os.environ.items()
        if name not in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT")
    }
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], env=rest | two, capture_output=True, text=True, check=True
    )
    found = json.loads(done.stdout)
    idle, busy, again = (found[name][0] for name in ("idle", "busy", "idle again"))
    assert len({tuple(values[1:]) for values in found.values()}) == 1
    if policy is None:
        assert busy < 0.5 * idle
        assert busy < 0.5 * again
    else:
        assert busy > 0.7 * idle
