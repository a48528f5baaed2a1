"""A store has the same bytes in whatever order, by however many writers and stops it is written."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import accumulate, islice
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.store.plan import Plan
from pipeline.store.reader import PseudoMaskStore
from pipeline.store.writer import StoreWriter
from tests.helpers.tiny_store import TEXT, Clip, digests, plan_of, write

NAMES = "abcde"
Work = list[tuple[str, int]]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Digests of the store of all photos, written at once and in order."""
    return digests(write(tmp_path_factory.mktemp("whole") / "x", plan_of(NAMES))[0])


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> list[PseudoMaskStore | None]:
    """What an earlier run may have left: nothing, or a store of other photos or recipes."""
    folder = tmp_path_factory.mktemp("earlier")
    plans = [plan_of(names) for names in ("ab", "edc", "abcde", "abc")]
    plans.append(replace(plan_of("abcd"), recipe={"weights": "of another CLIP"}))
    paths = [write(folder / f"{number}", plan)[0] for number, plan in enumerate(plans)]
    damaged = paths[3] / "local/logits/c/0/0/0/0"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    return [None, *(PseudoMaskStore.open(path) for path in paths)]


def writer_of(
    draft: Path, plan: Plan, previous: PseudoMaskStore | None
) -> tuple[StoreWriter, Clip]:
    return StoreWriter(draft, plan, text=TEXT, previous=previous), Clip(plan)


def rows_of(writer: StoreWriter, clip: Clip, work: Work) -> Iterator[int]:
    """Write shards one after the other, yielding each row."""
    for level, shard in work:
        yield from writer.write_shard(level, shard, clip.on(level))


def write_until(stop: int, rows: Iterator[int], work: Work, plan: Plan) -> set[tuple[str, int]]:
    """Be killed after ``stop`` rows; returns the shards that were written by then."""
    list(islice(rows, stop))
    ends = accumulate(len(plan.rows(*job)) for job in work)
    return {job for job, end in zip(work, ends, strict=True) if end <= stop}


def shards_of(plan: Plan) -> set[tuple[str, int]]:
    return {(level, n) for level in plan.grids for n in range(plan.num_shards(level))}


def leave_partial_file(store: Path, job: tuple[str, int], kind: str) -> None:
    """What a killed run may leave of the shard that it was writing."""
    file = store / job[0] / "logits" / "c" / f"{job[1]}/0/0/0"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(file.read_bytes()[:-7] if kind == "cut" and file.is_file() else b"noise" * 9)


@settings(max_examples=12)
@given(st.data())
def test_any_order_with_stops_anywhere_ends_with_the_same_bytes(undisturbed, earlier, data):
    previous = data.draw(st.sampled_from(range(len(earlier))))
    plan = plan_of(NAMES)
    with TemporaryDirectory() as folder:
        finished: set[tuple[str, int]] = set()
        for stop in data.draw(st.lists(st.integers(0, 9), max_size=3)):
            writer, clip = writer_of(Path(folder) / "x", plan, earlier[previous])
            pending = writer.pending(plan.grids)
            assert set(pending) == shards_of(plan) - finished  # what is on disk is not made again
            work = data.draw(st.permutations(pending))
            kept = write_until(stop, rows_of(writer, clip, work), work, plan)
            left = sorted(set(pending) - kept)
            assert sorted(writer.pending(plan.grids)) == left
            finished |= kept
            kind = data.draw(st.sampled_from(["", "cut", "noise"]))
            if left and kind:
                leave_partial_file(writer.path, data.draw(st.sampled_from(left)), kind)
        writer, clip = writer_of(Path(folder) / "x", plan, earlier[previous])
        for _ in rows_of(writer, clip, data.draw(st.permutations(writer.pending(plan.grids)))):
            pass
        assert writer.pending(plan.grids) == []
        assert digests(writer.path) == undisturbed


@settings(max_examples=8)
@given(st.data())
def test_any_number_of_writers_whose_rows_interleave_give_the_same_bytes(undisturbed, data):
    """As processes do: each lists what is missing and writes its share at its own pace."""
    plan, count = plan_of(NAMES), data.draw(st.integers(1, 4))
    with TemporaryDirectory() as folder:
        writers = [writer_of(Path(folder) / "x", plan, None) for _ in range(count)]
        shares = [
            rows_of(writer, clip, writer.pending(plan.grids)[rank::count])
            for rank, (writer, clip) in enumerate(writers)
        ]
        while shares:
            turn = data.draw(st.integers(0, len(shares) - 1))
            if next(shares[turn], None) is None:
                shares.pop(turn)
        assert digests(Path(folder) / "x" / "masks.zarr") == undisturbed
        asked = [call for _, clip in writers for call in clip.asked]
        assert sorted(asked) == sorted((level, name) for level in plan.grids for name in NAMES)
