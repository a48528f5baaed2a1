"""The cache of patch logits: what goes in comes out, and never depends on how it was written."""

import shutil
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import zarr

import pipeline.store.plan
from pipeline.store.plan import shard_record
from pipeline.store.reader import PseudoMaskStore
from pipeline.store.writer import StoreWriter
from pipeline.system.files import file_digest, write_json
from tests.helpers.tiny_store import CLASSES, RECIPE, TEXT, Clip, digests, logits_of, plan_of, write


@pytest.fixture(autouse=True)
def _two_photos_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.store.plan, "SHARD_PHOTOS", 2)


def test_logits_come_back_to_float16_at_the_size_of_each_photo(tmp_path: Path) -> None:
    plan = plan_of("abcde")
    store = PseudoMaskStore.open(write(tmp_path / "draft", plan)[0])
    assert store.keys == [photo.key for photo in plan.photos]
    assert store.classes == CLASSES
    assert store.levels == ["global", "local"]
    assert store.sizes == {photo.key: photo.size for photo in plan.photos}
    assert np.array_equal(store.text, TEXT)
    for row, photo in enumerate(plan.photos):
        for level in store.levels:
            grid = plan.grids[level][row]
            expected = logits_of(photo, level, grid).astype(np.float16)
            found = store.read(photo.key, level)
            assert (store.grid_size(photo.key, level), found.dtype) == (grid, np.float32)
            assert np.array_equal(found, expected.astype(np.float32))


def test_the_attributes_are_as_zarr_writes_them(tmp_path: Path) -> None:
    plan = plan_of("ab")
    store, _ = write(tmp_path / "draft", plan)
    zarr.create_group(tmp_path / "zarr", attributes=plan.attributes())
    assert (store / "zarr.json").read_bytes() == (tmp_path / "zarr/zarr.json").read_bytes()


def test_a_padded_grid_holds_the_photo_top_left_and_zeros_elsewhere(tmp_path: Path) -> None:
    plan = plan_of("abd")
    store = PseudoMaskStore.open(write(tmp_path / "draft", plan)[0])
    padded = store.read_padded("train/a", "global")
    assert (padded.shape, padded.dtype) == ((3, 4, 4), np.float16)
    expected = np.zeros((3, 4, 4), np.float16)
    expected[:, :2, :3] = logits_of(plan.photos[0], "global", (2, 3))
    assert np.array_equal(padded, expected)


def test_a_level_takes_the_largest_height_and_the_largest_width(tmp_path: Path) -> None:
    assert plan_of("abd").shape("global") == (3, 3, 4, 4)
    assert plan_of("ac").shape("local") == (2, 3, 6, 6)


def test_any_order_of_shards_gives_the_same_bytes(tmp_path: Path) -> None:
    plan = plan_of("abcde")
    first, _ = write(tmp_path / "1", plan)
    last, _ = write(tmp_path / "2", plan, order=lambda jobs: jobs[::-1])
    mixed, _ = write(tmp_path / "3", plan, order=lambda jobs: sorted(jobs, key=lambda job: job[1]))
    assert len(digests(first)) == len({*digests(first)}) > 10
    assert digests(first) == digests(last) == digests(mixed)


@pytest.mark.parametrize("stop", [1, 2, 3, 5, 9])
def test_a_stopped_writer_goes_on_and_ends_with_the_same_bytes(tmp_path: Path, stop: int) -> None:
    plan = plan_of("abcde")
    undisturbed, _ = write(tmp_path / "whole", plan)
    writer, clip = StoreWriter(tmp_path / "x", plan, text=TEXT, previous=None), Clip(plan)
    jobs = writer.pending(writer.plan.grids)
    rows = (row for job in jobs for row in writer.write_shard(*job, clip.on(job[0])))
    assert len(list(islice(rows, stop))) == stop  # then the process is killed
    resumed, asked = write(tmp_path / "x", plan)
    finished = [2, 2, 1, 2, 2, 1]  # rows of each shard, global then local
    kept = max(sum(finished[:n]) for n in range(7) if sum(finished[:n]) <= stop)
    assert len(asked) == 10 - kept
    assert digests(resumed) == digests(undisturbed)


def test_what_a_killed_run_left_in_its_draft_does_not_reach_the_store(tmp_path: Path) -> None:
    plan = plan_of("abcde")
    undisturbed, _ = write(tmp_path / "whole", plan)
    writer, clip = StoreWriter(tmp_path / "x", plan, text=TEXT, previous=None), Clip(plan)
    list(writer.write_shard("local", 0, clip.on("local")))
    left = ["local/logits/c/0/0/0/0.7f.partial", "local/logits/c/1/0/0/0.8e.partial"]
    left += ["finished/.local-0.json.lock", "finished/.local-1.json.draft"]
    shard_record(writer.path, "local", 0).unlink()  # killed before it was written
    for name in left:
        (writer.path / name).parent.mkdir(parents=True, exist_ok=True)
        (writer.path / name).write_bytes(b"x")
    resumed, _ = write(tmp_path / "x", plan)
    assert digests(resumed) == digests(undisturbed)


DAMAGE = ["flip", "cut", "gone", "no record", "other record", "bad record"]


@pytest.mark.parametrize("shard", [1, 2])  # a full one and the last
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_shard_whose_bytes_are_not_the_recorded_ones_is_written_again(
    tmp_path: Path, damage: str, shard: int
) -> None:
    plan = plan_of("abcde")
    store, _ = write(tmp_path / "x", plan)
    before = digests(store)
    file, record = store / f"local/logits/c/{shard}/0/0/0", store / f"finished/local-{shard}.json"
    content = file.read_bytes()
    if damage == "flip":
        file.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    elif damage == "cut":
        file.write_bytes(content[:-1])
    elif damage == "other record":
        shutil.copy(store / "finished/local-0.json", record)
    elif damage == "bad record":
        record.write_bytes(b"\xff")
    else:
        (file if damage == "gone" else record).unlink()
    _, asked = write(tmp_path / "x", plan)
    assert asked == [("local", plan.photos[row].key[-1]) for row in plan.rows("local", shard)]
    assert digests(store) == before


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("abc", "abcde"),  # at the end
        ("abc", "dabec"),  # in the middle
        ("abcde", "ac"),  # taken away
        ("abc", "cba"),  # in another order
        ("ac", "acb"),  # the largest grid grows
        ("abc", "abc"),
        ("ab", "cd"),
    ],
)
def test_only_new_photos_are_computed_and_the_rest_equals_a_store_from_scratch(
    tmp_path: Path, before: str, after: str
) -> None:
    previous = PseudoMaskStore.open(write(tmp_path / "before", plan_of(before))[0])
    updated, asked = write(tmp_path / "after", plan_of(after), previous=previous)
    scratch, _ = write(tmp_path / "scratch", plan_of(after))
    new = [name for name in after if name not in before]
    assert sorted(asked) == sorted((level, name) for level in ("global", "local") for name in new)
    assert digests(updated) == digests(scratch)


@pytest.mark.parametrize(
    ("after", "kept"),
    [
        ("dbcae", [True, True, True]),
        ("dbca", [True, True]),
        ("dbc", [True, False]),  # half a shard
        ("bdcae", [False, True, True]),
        ("cadbe", [False, False, True]),
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
    updated, asked = write(tmp_path / "x", plan_of(after), previous=PseudoMaskStore.open(path))
    found, new = digests(updated), digests(write(tmp_path / "new", plan_of(after))[0])
    before = digests(path)
    for number, same in enumerate(kept):
        name = f"global/logits/c/{number}/0/0/0"
        assert found[name] == (before if same else new)[name]
    assert asked == []


def test_of_two_photos_with_the_same_bytes_each_shard_is_looked_at_itself(tmp_path: Path) -> None:
    whole = plan_of("abc")
    twice = replace(
        whole,
        photos=[*whole.photos[:2], *(replace(p, key=p.key * 2) for p in whole.photos[:2])],
        grids={level: [*grids[:2], *grids[:2]] for level, grids in whole.grids.items()},
    )
    path, _ = write(tmp_path / "before", twice)
    shard = path / "global/logits/c/0/0/0/0"
    shard.write_bytes(b"damaged" + shard.read_bytes())
    updated, asked = write(tmp_path / "x", twice, previous=PseudoMaskStore.open(path))
    assert asked == []  # the other shard has them
    assert digests(updated) == digests(write(tmp_path / "new", twice)[0])


def test_a_renamed_photo_is_known_by_its_bytes(tmp_path: Path) -> None:
    plan = plan_of("ab")
    previous = PseudoMaskStore.open(write(tmp_path / "before", plan)[0])
    renamed = replace(plan, photos=[replace(photo, key=photo.key * 2) for photo in plan.photos])
    store, asked = write(tmp_path / "after", renamed, previous=previous)
    assert asked == []
    read = PseudoMaskStore.open(store).read("train/atrain/a", "global")
    assert np.array_equal(read, previous.read("train/a", "global"))


def test_a_photo_of_other_bytes_is_computed_again(tmp_path: Path) -> None:
    plan = plan_of("abc")
    previous = PseudoMaskStore.open(write(tmp_path / "before", plan)[0])
    photos = [plan.photos[0], replace(plan.photos[1], digest="of other bytes"), plan.photos[2]]
    _, asked = write(tmp_path / "after", replace(plan, photos=photos), previous=previous)
    assert asked == [("global", "b"), ("local", "b")]


def test_another_recipe_reuses_nothing_and_another_level_all_but_itself(tmp_path: Path) -> None:
    previous = PseudoMaskStore.open(write(tmp_path / "before", plan_of("ab"))[0])
    weights = {**RECIPE, "weights": "xyz"}
    _, asked = write(tmp_path / "weights", plan_of("ab", weights), previous=previous)
    assert len(asked) == 4
    levels = {"global": {"zoom": 1.0}, "local": {"zoom": 3.0}}
    _, asked = write(
        tmp_path / "level", plan_of("ab", {**RECIPE, "levels": levels}), previous=previous
    )
    assert asked == [("local", "a"), ("local", "b")]


def test_a_new_level_leaves_the_old_ones_alone(tmp_path: Path) -> None:
    whole = plan_of("ab")
    one = replace(
        whole,
        recipe={**RECIPE, "levels": {"global": {"zoom": 1.0}}},
        grids={"global": whole.grids["global"]},
    )
    previous = PseudoMaskStore.open(write(tmp_path / "one", one)[0])
    grown, asked = write(tmp_path / "two", whole, previous=previous)
    assert asked == [("local", "a"), ("local", "b")]
    assert digests(grown) == digests(write(tmp_path / "scratch", whole)[0])


def test_nothing_is_taken_over_from_a_damaged_shard_of_an_earlier_store(tmp_path: Path) -> None:
    earlier, _ = write(tmp_path / "before", plan_of("abc"))
    shard = earlier / "global/logits/c/0/0/0/0"
    content = bytearray(shard.read_bytes())
    content[20] ^= 1
    shard.write_bytes(content)
    updated, asked = write(
        tmp_path / "after", plan_of("abcd"), previous=PseudoMaskStore.open(earlier)
    )
    assert sorted(asked) == [("global", "a"), ("global", "b"), ("global", "d"), ("local", "d")]
    assert digests(updated) == digests(write(tmp_path / "scratch", plan_of("abcd"))[0])
