"""Stores of two photos per shard."""

from collections.abc import Iterator

import pytest

import pipeline.store.plan


@pytest.fixture(autouse=True, scope="module")
def two_photos_per_shard() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(pipeline.store.plan, "SHARD_PHOTOS", 2)
        yield
