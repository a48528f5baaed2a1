"""What a store must hold, and how it is cut into shards."""

from dataclasses import replace
from pathlib import Path

import pytest

import pipeline.store.plan
from pipeline.store.plan import Photo, Plan
from tests.helpers.tiny_store import CLASSES, digests, plan_of, write


@pytest.mark.parametrize(
    ("count", "photos", "rows"),
    [
        (1, 256, [1]),
        (256, 256, [256]),
        (257, 256, [256, 1]),
        (600, 256, [256, 256, 88]),
        (5, 2, [2, 2, 1]),
        (3, 1, [1, 1, 1]),
    ],
)
def test_shards_hold_every_photo_once_in_order(
    monkeypatch: pytest.MonkeyPatch, count: int, photos: int, rows: list[int]
) -> None:
    monkeypatch.setattr(pipeline.store.plan, "SHARD_PHOTOS", photos)
    plan = Plan(
        {},
        CLASSES,
        [Photo(f"{n}", f"{n}", (1, 1)) for n in range(count)],
        {"global": [(1, 1)] * count},
    )
    shards = [plan.rows("global", shard) for shard in range(plan.num_shards("global"))]
    assert [len(shard) for shard in shards] == rows
    assert [row for shard in shards for row in shard] == list(range(count))


def test_a_shard_stays_below_its_bytes_and_holds_one_photo_at_least(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    plan = plan_of("abcde")  # the global level takes 3 classes x 4 x 4 cells x 2 bytes = 96 a photo
    monkeypatch.setattr(pipeline.store.plan, "SHARD_PHOTOS", 4)
    for limit, photos in ((383, 3), (384, 4), (9999, 4), (95, 1)):
        monkeypatch.setattr(pipeline.store.plan, "SHARD_BYTES", limit)
        assert plan.shard_size("global") == photos


def test_photos_at_the_end_leave_full_shards_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline.store.plan, "SHARD_PHOTOS", 2)
    before = digests(write(tmp_path / "before", plan_of("dbc"))[0])
    after = digests(write(tmp_path / "after", plan_of("dbcae"))[0])
    for level in ("global", "local"):
        full, grown = f"{level}/logits/c/0/0/0/0", f"{level}/logits/c/1/0/0/0"
        assert before[full] == after[full]
        assert before[grown] != after[grown]
        assert f"{level}/logits/c/2/0/0/0" in after


def test_the_fingerprint_names_all_that_a_store_holds() -> None:
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
