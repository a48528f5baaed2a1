"""Fixtures that several test files use."""

import ctypes
import fcntl
import os
import resource
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

# Before torch is imported: workers of `pytest -n 2`, and what they start, share the cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import psutil
import pytest
import torch
from hypothesis import settings

from pipeline.config.params import Params, load_params
from pipeline.store.reader import PseudoMaskStore
from tests.helpers import PAPER
from tests.helpers.fake_hub import Hub, add_tagged_clip, fake_hub, use_endpoint
from tests.helpers.tiny_store import store_of_logits

# The same examples in every run, nothing kept on disk, no time limit on a busy machine.
settings.register_profile(
    "repeatable", derandomize=True, database=None, deadline=None, max_examples=50
)
settings.register_profile("fuzz", database=None, deadline=None, max_examples=300)
settings.load_profile("repeatable")

# A process that never stops writing must not fill the disk of the machine.
resource.setrlimit(resource.RLIMIT_FSIZE, (2**31, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
PR_SET_CHILD_SUBREAPER = 36  # of <linux/prctl.h>: orphans become children of the tests' process
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)

StoreOf = Callable[..., PseudoMaskStore]


@pytest.fixture(scope="session")
def params() -> Params:
    """The demo's parameters by the paper's recipe."""
    return load_params(PAPER)


@pytest.fixture
def store_of(tmp_path: Path) -> StoreOf:
    """Writes logits, level -> key -> ``[C, h, w]``, as a store and opens it."""
    return partial(store_of_logits, tmp_path / "draft")


@pytest.fixture
def local_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """A Hugging Face Hub on this machine, and an empty cache."""
    with fake_hub(tmp_path / "hub") as (endpoint, asked):
        use_endpoint(monkeypatch, endpoint, tmp_path / "cache")
        yield Hub(tmp_path / "hub", asked)


@pytest.fixture
def tagged_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Makes 'Tiny-16' with tag 'lab' a model of open_clip's registry; returns its weights."""
    return add_tagged_clip(tmp_path, monkeypatch)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what needs a GPU where there is none."""
    if item.get_closest_marker("gpu") and not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")


def _leftovers() -> list[psutil.Process]:
    """Running processes that tests started, except Python's own helpers."""
    own = ("resource_tracker", "forkserver", "--multiprocessing-fork", "loky")
    found = []
    for child in psutil.Process().children(recursive=True):
        try:
            line = " ".join(child.cmdline())
            if child.status() != psutil.STATUS_ZOMBIE and not any(name in line for name in own):
                found.append(child)
        except psutil.Error:
            continue
    return found


@pytest.fixture(autouse=True, scope="module")
def no_process_is_left() -> Iterator[None]:
    """Fail if a test leaves a process behind, and kill it."""
    before = {child.pid for child in _leftovers()}
    yield
    _, left = psutil.wait_procs([c for c in _leftovers() if c.pid not in before], timeout=20)
    lines = []
    for child in left:
        lines.append(" ".join(child.cmdline())[:300])
        child.kill()
    assert not lines, f"still running: {lines}"


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished tiny run of 10 steps, to be read only; see `run_copy`.

    The workers of `pytest -n` share one: the first makes it, the others wait for the lock.
    """
    from tests.helpers.tiny_run import SHORT, file_states, finished_run  # imports all stages

    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "finished"
    with Path(f"{folder}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            draft = Path(f"{folder}.draft")
            draft.mkdir(exist_ok=True)
            finished_run(draft, SHORT).rename(folder)
    before = file_states(folder)
    yield folder
    assert file_states(folder) == before, "a test changed the run that all tests share"


@pytest.fixture
def run_copy(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run, to be changed; it is the current folder."""
    from tests.helpers.tiny_run import copy_run

    folder = copy_run(finished, tmp_path / "run")
    monkeypatch.chdir(folder)
    return folder
