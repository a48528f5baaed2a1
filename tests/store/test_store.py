"""The cache of patch logits: read as written, whatever is reused, resumed or damaged."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import zarr

from pipeline.store.reader import PseudoMaskStore
from pipeline.system.files import file_digest, write_json
from tests.helpers.tiny_store import CLASSES, RECIPE, TEXT, digests, logits_of, plan_of, write


def test_logits_come_back_as_float16_at_the_size_of_each_photo(tmp_path: Path) -> None:
    plan = plan_of("abcde")
    store = PseudoMaskStore.open(write(tmp_path / "draft", plan)[0])
    assert store.keys == [photo.key for photo in plan.photos]
    assert (store.classes, store.levels) == (CLASSES, ["global", "local"])
    assert store.sizes == {photo.key: photo.size for photo in plan.photos}
    assert np.array_equal(store.text, TEXT)
    for row, photo in enumerate(plan.photos):
        for level in store.levels:
            grid = plan.grids[level][row]
            expected = logits_of(photo, level, grid).astype(np.float16)
            found = store.read(photo.key, level)
            assert (store.grid_size(photo.key, level), found.dtype) == (grid, np.float32)
            assert np.array_equal(found, expected.astype(np.float32))
    padded = store.read_padded("train/a", "global")
    assert (padded.shape, padded.dtype) == ((3, 4, 4), np.float16)
    assert np.array_equal(padded[:, :2, :3], store.read("train/a", "global"))
    assert not padded[:, 2:].any()
    assert not padded[:, :, 3:].any()


def test_the_attributes_are_as_zarr_writes_them(tmp_path: Path) -> None:
    plan = plan_of("ab")
    store, _ = write(tmp_path / "draft", plan)
    zarr.create_group(tmp_path / "zarr", attributes=plan.attributes())
    assert (store / "zarr.json").read_bytes() == (tmp_path / "zarr/zarr.json").read_bytes()


@pytest.mark.parametrize("damage", ["flip", "gone", "no record", "other record", "bad record"])
def test_a_shard_that_differs_from_its_record_is_written_again(tmp_path: Path, damage: str) -> None:
    plan = plan_of("abc")
    store, _ = write(tmp_path / "x", plan)
    before = digests(store)
    file, record = store / "local/logits/c/1/0/0/0", store / "finished/local-1.json"
    content = file.read_bytes()
    if damage == "flip":
        file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif damage == "other record":
        shutil.copy(store / "finished/local-0.json", record)
    elif damage == "bad record":
        record.write_bytes(b"\xff")
    else:
        (file if damage == "gone" else record).unlink()
    for left in ("local/logits/c/1/0/0/0.8e.partial", "finished/.local-1.json.lock"):
        (store / left).write_bytes(b"of a killed run")
    _, computed = write(tmp_path / "x", plan)
    assert computed == [("local", "c")]
    assert digests(store) == before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("abc", "dabec"),  # added in the middle, the largest grid grows
        ("abcde", "ca"),  # removed, in another order
        ("abc", "abc"),
    ],
)
def test_only_new_photos_are_computed_and_the_result_equals_a_store_from_scratch(
    tmp_path: Path, before: str, after: str
) -> None:
    previous = PseudoMaskStore.open(write(tmp_path / "before", plan_of(before))[0])
    updated, computed = write(tmp_path / "after", plan_of(after), previous=previous)
    scratch, _ = write(tmp_path / "scratch", plan_of(after))
    new = [name for name in after if name not in before]
    assert sorted(computed) == [(level, name) for level in ("global", "local") for name in new]
    assert digests(updated) == digests(scratch)


@pytest.mark.parametrize(
    ("after", "kept"),
    [
        ("dbca", [True, True]),
        ("dbc", [True, False]),  # half a shard
        ("bdcae", [False, True, True]),
    ],
)
def test_a_shard_of_the_same_photos_is_copied_as_a_file(
    tmp_path: Path, after: str, kept: list[bool]
) -> None:
    path, _ = write(tmp_path / "before", plan_of("dbcae"))
    for number in range(3):  # the same logits in other bytes: a gap before the index
        shard = path / f"global/logits/c/{number}/0/0/0"
        content = shard.read_bytes()
        shard.write_bytes(content[:-36] + b"a gap" + content[-36:])
        write_json(path / f"finished/global-{number}.json", file_digest(shard))
    updated, computed = write(tmp_path / "x", plan_of(after), previous=PseudoMaskStore.open(path))
    assert computed == []
    found, new = digests(updated), digests(write(tmp_path / "new", plan_of(after))[0])
    for number, same in enumerate(kept):
        name = f"global/logits/c/{number}/0/0/0"
        assert found[name] == (digests(path) if same else new)[name]


def test_photos_are_identified_by_their_bytes(tmp_path: Path) -> None:
    plan = plan_of("ab")
    renamed = [replace(photo, key=photo.key * 2) for photo in plan.photos]
    twice = replace(
        plan,
        photos=[*plan.photos, *renamed],
        grids={level: grids * 2 for level, grids in plan.grids.items()},
    )
    path, _ = write(tmp_path / "before", twice)
    shard = path / "global/logits/c/0/0/0/0"
    shard.write_bytes(b"damaged" + shard.read_bytes())
    previous = PseudoMaskStore.open(path)
    updated, computed = write(tmp_path / "x", twice, previous=previous)
    assert computed == []  # the other shard has the same photos
    assert digests(updated) == digests(write(tmp_path / "new", twice)[0])
    store, computed = write(tmp_path / "y", replace(plan, photos=renamed), previous=previous)
    assert computed == []
    read = PseudoMaskStore.open(store).read("train/atrain/a", "global")
    assert np.array_equal(read, previous.read("train/atrain/a", "global"))
    moved = [replace(photo, key=f"val/{photo.key}") for photo in plan.photos]  # new names
    assert write(tmp_path / "moved", replace(plan, photos=moved), previous=previous)[1] == []


def test_another_recipe_reuses_nothing_and_another_level_all_but_itself(tmp_path: Path) -> None:
    whole = plan_of("ab")
    previous = PseudoMaskStore.open(write(tmp_path / "before", whole)[0])
    weights = {**RECIPE, "weights": "xyz"}
    _, computed = write(tmp_path / "weights", plan_of("ab", weights), previous=previous)
    assert len(computed) == 4
    levels = {"global": {"zoom": 1.0}, "local": {"zoom": 3.0}}
    other = plan_of("ab", {**RECIPE, "levels": levels})
    _, computed = write(tmp_path / "level", other, previous=previous)
    assert computed == [("local", "a"), ("local", "b")]
    one = replace(
        whole,
        recipe={**RECIPE, "levels": {"global": {"zoom": 1.0}}},
        grids={"global": whole.grids["global"]},
    )
    previous = PseudoMaskStore.open(write(tmp_path / "one", one)[0])
    _, computed = write(tmp_path / "two", whole, previous=previous)  # a new level
    assert computed == [("local", "a"), ("local", "b")]


def test_nothing_is_reused_of_a_damaged_shard(tmp_path: Path) -> None:
    earlier, _ = write(tmp_path / "before", plan_of("abc"))
    shard = earlier / "global/logits/c/0/0/0/0"
    content = bytearray(shard.read_bytes())
    content[20] ^= 1
    shard.write_bytes(content)
    previous = PseudoMaskStore.open(earlier)
    updated, computed = write(tmp_path / "after", plan_of("abcd"), previous=previous)
    assert sorted(computed) == [("global", "a"), ("global", "b"), ("global", "d"), ("local", "d")]
    assert digests(updated) == digests(write(tmp_path / "scratch", plan_of("abcd"))[0])
