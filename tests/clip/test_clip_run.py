"""CLIP over every photo once: blended by hand, repeatable to the byte, asked for nothing twice."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

import pipeline.clip.windows
from pipeline.clip.build_store import build_store
from pipeline.clip.dense import DenseClip
from pipeline.clip.windows import cover_features, magnified
from pipeline.config.clip import ClipParams, FusedParams
from pipeline.config.params import Params
from pipeline.guided_filter import fuse_levels
from pipeline.store.reader import PseudoMaskStore
from tests.helpers import clip_folder
from tests.helpers.clip_photos import (
    LEVELS,
    SIZES,
    SPACE,
    TEMPLATES,
    asked_of,
    cover_slowly,
    index_of,
    photo_of,
)
from tests.helpers.tiny_store import digests

OF_PROBE = [10, 10]  # windows of the two levels


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> DenseClip:
    return clip_folder.random_clip(tmp_path_factory.mktemp("vit"), clip_folder.VIT)


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1, precision="32-true")


@pytest.fixture
def asked(params: Params) -> ClipParams:
    return asked_of(params)


@contextmanager
def windows_seen(clip: DenseClip) -> Iterator[list[int]]:
    """How many windows each call of the image tower gets."""
    seen: list[int] = []
    hook = clip.model.visual.conv1.register_forward_pre_hook(
        lambda _, inputs: seen.append(len(inputs[0]))
    )
    yield seen
    hook.remove()


Make = Callable[..., dict[str, str]]


@pytest.fixture
def make(tmp_path: Path, fabric: Fabric, clip: DenseClip, asked: ClipParams) -> Make:
    """Bring ``tmp_path / out`` up to date for these photos; returns each file's digest."""

    def run(names: str, out: str = "masks.zarr", params: ClipParams = asked) -> dict[str, str]:
        build_store(
            fabric,
            clip,
            index_of(tmp_path / "data", names),
            root=tmp_path / "data",
            params=params,
            templates=TEMPLATES,
            out=tmp_path / out,
            scratch=tmp_path / "scratch",
        )
        assert list((tmp_path / "scratch").iterdir()) == []
        return digests(tmp_path / out)

    return run


@pytest.mark.parametrize("pixels_a_call", [2**23, 2 * 32 * 32, 1])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", SIZES)
def test_a_photo_is_covered_by_windows_and_each_cell_is_their_mean(
    monkeypatch: pytest.MonkeyPatch, clip: DenseClip, name: str, level: str, pixels_a_call: int
) -> None:
    monkeypatch.setattr(pipeline.clip.windows, "PIXELS_A_CALL", pixels_a_call)
    text, image = clip.embed_text([["car"], ["sky"]], TEMPLATES), photo_of(name)
    with windows_seen(clip) as seen:
        grid = cover_features(
            magnified(image, LEVELS[level], patch_size=16),
            LEVELS[level],
            clip,
            lambda windows: clip.patch_logits(windows, text),
        )
    high, wide = (
        min(side, 16 * cells)
        for side, cells in zip(LEVELS[level].window, grid.shape[1:], strict=True)
    )
    assert max(seen) <= max(1, pixels_a_call // (high * wide))
    expected = cover_slowly(image, LEVELS[level], clip, text)
    assert grid.dtype == torch.float32
    np.testing.assert_allclose(grid.numpy(), expected, rtol=0, atol=1e-5)


def test_the_store_holds_the_logits_of_each_photo_and_level(
    tmp_path: Path, clip: DenseClip, make: Make
) -> None:
    make("ab")
    store = PseudoMaskStore.open(tmp_path / "masks.zarr")
    text = clip.embed_text(SPACE.words({}), TEMPLATES)
    assert (store.keys, store.classes) == (["train/a", "train/b"], SPACE.names)
    np.testing.assert_array_equal(store.text, text.numpy())
    for name in "ab":
        for level, how in LEVELS.items():
            expected = cover_slowly(photo_of(name), how, clip, text)
            read = store.read(f"train/{name}", level)
            np.testing.assert_allclose(read, expected, rtol=0, atol=1e-3)  # float16


def with_fused(asked: ClipParams, **changes: object) -> ClipParams:
    fused = FusedParams.model_validate({"size": [24, 32], "stride": 2, "radius": 2} | changes)
    return asked.model_copy(update={"fused": fused})


def test_the_fused_level_is_made_of_what_the_others_hold(
    tmp_path: Path, asked: ClipParams, make: Make
) -> None:
    make("ab", params=with_fused(asked))
    store = PseudoMaskStore.open(tmp_path / "masks.zarr")
    assert (store.levels, store.global_level, store.local_levels) == (
        ["global", "local", "fused"],
        "fused",
        ["local"],
    )
    for name, size in {"a": (22, 32), "b": (24, 20)}.items():  # 32x48 and 50x40 pixels fitted
        grids = [torch.from_numpy(store.read(f"train/{name}", level)) for level in LEVELS]
        wanted = fuse_levels(photo_of(name), grids, size=size, stride=2, radius=2)
        found = store.read(f"train/{name}", "fused")
        np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-3)  # float16


def test_another_way_to_fuse_asks_clip_nothing(
    tmp_path: Path, clip: DenseClip, asked: ClipParams, make: Make
) -> None:
    plain = make("ab")
    with windows_seen(clip) as seen:
        first = make("ab", params=with_fused(asked))
        other = make("ab", params=with_fused(asked, radius=1))
        assert make("ab", params=with_fused(asked)) == first
        assert seen == 3 * OF_PROBE
    changed = {name for name in first if first[name] != other.get(name)}
    assert {name.split("/")[0] for name in changed} == {"fused", "finished", "zarr.json"}
    kept = {name for name in plain if name.startswith(("global/logits/c", "local/logits/c"))}
    assert kept
    assert all(first[name] == plain[name] for name in kept)


def test_a_photos_logits_do_not_depend_on_its_neighbours(tmp_path: Path, make: Make) -> None:
    make("abcd", "together.zarr")
    make("c", "alone.zarr")
    together, alone = (
        PseudoMaskStore.open(tmp_path / name) for name in ("together.zarr", "alone.zarr")
    )
    for level in LEVELS:
        read = together.read("train/c", level)
        assert np.array_equal(read, alone.read("train/c", level))


def test_a_second_run_asks_clip_nothing_and_gives_the_same_bytes(
    clip: DenseClip, make: Make
) -> None:
    with windows_seen(clip) as seen:
        first = make("ab")
        assert sum(seen) > 0
        seen.clear()
        assert make("ab") == first
        assert seen == OF_PROBE
    assert make("ab", "elsewhere.zarr") == first


def test_a_new_photo_is_all_that_clip_looks_at(clip: DenseClip, make: Make) -> None:
    with windows_seen(clip) as seen:
        make("d", "alone.zarr")
        of_one = list(seen)
        make("ab")
        seen.clear()
        grown = make("adb")
        assert seen == of_one
    assert grown == make("adb", "scratch.zarr")


def test_a_stopped_run_goes_on_and_ends_with_the_same_bytes(
    tmp_path: Path, clip: DenseClip, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.store.plan.SHARD_PHOTOS", 1)
    undisturbed = make("abc", "undisturbed.zarr")
    make("b")

    def kill_at_the_third(_: object, inputs: object) -> None:
        if len(seen) == len(OF_PROBE) + 3:
            raise KeyboardInterrupt

    with windows_seen(clip) as seen:
        hook = clip.model.visual.conv1.register_forward_pre_hook(kill_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            make("abc")
        hook.remove()
        assert PseudoMaskStore.open(tmp_path / "masks.zarr").keys == ["train/b"]
        seen.clear()
        assert make("abc") == undisturbed
        assert len(seen) == len(OF_PROBE) + 2  # of a and c at two levels two were finished


def test_a_link_into_the_cache_is_replaced_and_the_cache_left_alone(
    tmp_path: Path, make: Make
) -> None:
    cached = make("ab", "cache")
    (tmp_path / "masks.zarr").symlink_to(tmp_path / "cache")
    make("a")
    assert not (tmp_path / "masks.zarr").is_symlink()
    assert digests(tmp_path / "cache") == cached


def test_rubbish_in_the_place_of_the_store_does_not_matter(tmp_path: Path, make: Make) -> None:
    expected = make("d", "expected.zarr")
    (tmp_path / "masks.zarr" / "global").mkdir(parents=True)
    (tmp_path / "masks.zarr" / "zarr.json").write_text("null")
    (tmp_path / "file.zarr").write_text("x")
    assert make("d") == make("d", "file.zarr") == expected
