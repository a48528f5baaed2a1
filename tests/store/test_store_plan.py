"""The plan of a store: shapes, shards and fingerprint."""

from dataclasses import replace

import pytest

import pipeline.store.plan
from pipeline.store.plan import Photo, Plan
from tests.helpers.tiny_store import CLASSES, plan_of


@pytest.mark.parametrize(
    ("count", "photos", "rows"), [(1, 256, [1]), (600, 256, [256, 256, 88]), (3, 1, [1, 1, 1])]
)
def test_shards_hold_every_photo_once_in_order(
    monkeypatch: pytest.MonkeyPatch, count: int, photos: int, rows: list[int]
) -> None:
    monkeypatch.setattr(pipeline.store.plan, "SHARD_PHOTOS", photos)
    named = [Photo(f"{n}", f"{n}", (1, 1)) for n in range(count)]
    plan = Plan({}, CLASSES, named, {"global": [(1, 1)] * count})
    shards = [plan.rows("global", shard) for shard in range(plan.num_shards("global"))]
    assert [len(shard) for shard in shards] == rows
    assert [row for shard in shards for row in shard] == list(range(count))


def test_a_shard_stays_below_its_bytes_and_holds_one_photo_at_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = plan_of("abcde")
    assert plan.shape("global") == (5, 3, 4, 4)  # 96 bytes per photo
    monkeypatch.setattr(pipeline.store.plan, "SHARD_PHOTOS", 4)
    for limit, photos in ((383, 3), (384, 4), (9999, 4), (95, 1)):
        monkeypatch.setattr(pipeline.store.plan, "SHARD_BYTES", limit)
        assert plan.shard_size("global") == photos


def test_the_fingerprint_depends_on_everything_that_a_store_holds() -> None:
    plan = plan_of("ab")
    others = [
        plan,
        plan_of("ba"),
        plan_of("abc"),
        replace(plan, recipe={}),
        replace(plan, classes=["road", "car", "tree"]),
        replace(plan, photos=[replace(plan.photos[0], digest="x"), plan.photos[1]]),
        replace(plan, grids={**plan.grids, "local": plan.grids["global"]}),
    ]
    assert len({other.fingerprint() for other in others}) == len(others)
    assert plan_of("ab").fingerprint() == plan.fingerprint()
