"""Fixtures that several test files use."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

# Before torch is imported: workers of `pytest -n 2`, and what they start, share the cores.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

from pipeline.config.params import Params, load_params
from pipeline.store.reader import PseudoMaskStore
from tests.helpers.tiny_store import store_of_logits

# The same examples in every run, nothing kept on disk, and no clock on a busy machine.
settings.register_profile(
    "repeatable", derandomize=True, database=None, deadline=None, max_examples=50
)
settings.register_profile("fuzz", database=None, deadline=None, max_examples=300)
settings.load_profile("repeatable")

StoreOf = Callable[..., PseudoMaskStore]


@pytest.fixture(scope="session")
def params() -> Params:
    """The committed params.yaml."""
    return load_params(Path(__file__).parents[1] / "params.yaml")


@pytest.fixture
def store_of(tmp_path: Path) -> StoreOf:
    """Writes logits, level -> key -> ``[C, h, w]``, as a store and opens it."""
    return partial(store_of_logits, tmp_path / "draft")


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A finished tiny run of 10 steps, one per test process, to be read only; see `run_copy`."""
    from tests.helpers.tiny_run import SHORT, file_states, finished_run  # imports all stages

    folder = finished_run(tmp_path_factory.mktemp("finished"), SHORT)
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
