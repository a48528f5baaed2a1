"""Fixtures that several test files use."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings

from pipeline.config import Params, load_params
from pipeline.store import Photo, Plan, PseudoMaskStore, StoreWriter

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

    def write(
        logits: dict[str, dict[str, np.ndarray]], sizes: dict[str, tuple[int, int]]
    ) -> PseudoMaskStore:
        num_classes = len(next(iter(next(iter(logits.values())).values())))
        plan = Plan(
            recipe={"made": "in a test"},
            classes=[f"class {index}" for index in range(num_classes)],
            photos=[Photo(key, key, size) for key, size in sizes.items()],
            grids={
                level: [grids[key].shape[1:] for key in sizes] for level, grids in logits.items()
            },
        )
        text = np.eye(num_classes, 8, dtype=np.float32)
        writer = StoreWriter(tmp_path / "draft", plan, text=text, previous=None)
        keys = list(sizes)
        for level, shard in writer.pending(writer.plan.grids):
            rows = writer.write_shard(level, shard, lambda row, of=logits[level]: of[keys[row]])
            assert list(rows)
        return PseudoMaskStore.open(writer.path)

    return write
