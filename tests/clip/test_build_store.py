"""CLIP over every photo once: correct logits, repeatable to the byte, nothing computed twice."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from filelock import FileLock

import pipeline.clip.windows
from pipeline.clip.build_store import Part
from pipeline.clip.dense import DenseClip
from pipeline.clip.windows import cover_features, magnified
from pipeline.config.clip import ClipParams, FusedParams
from pipeline.guided_filter import fuse_levels
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.files import hidden_path
from tests.clip.conftest import Build
from tests.helpers.clip_photos import LEVELS, SPACE, TEMPLATES, cover_slowly, photo_of
from tests.helpers.tiny_store import digests

OF_PROBE = [10, 10]  # windows of the two levels


@contextmanager
def windows_seen(clip: DenseClip) -> Iterator[list[int]]:
    """How many windows each call of the image tower gets."""
    seen: list[int] = []
    hook = clip.model.visual.conv1.register_forward_pre_hook(
        lambda _, inputs: seen.append(len(inputs[0]))
    )
    yield seen
    hook.remove()


@pytest.mark.parametrize("pixels_per_call", [2 * 32 * 32, 1])
@pytest.mark.parametrize("level", LEVELS)
def test_each_cell_is_the_mean_over_the_windows_that_cover_it(
    monkeypatch: pytest.MonkeyPatch, vit: DenseClip, level: str, pixels_per_call: int
) -> None:
    monkeypatch.setattr(pipeline.clip.windows, "MAX_PIXELS", pixels_per_call)
    text, how = vit.embed_text([["car"], ["sky"]], TEMPLATES), LEVELS[level]
    for name in "bd":
        pixels = magnified(photo_of(name), how, patch_size=16)
        with windows_seen(vit) as seen:
            grid = cover_features(pixels, how, vit, lambda images: vit.patch_logits(images, text))
        sides = zip(how.window, pixels.shape[:2], strict=True)
        area = int(np.prod([min(side, whole) for side, whole in sides]))
        assert max(seen) <= max(1, pixels_per_call // area)
        assert grid.dtype == torch.float32
        expected = cover_slowly(photo_of(name), how, vit, text)
        np.testing.assert_allclose(grid.numpy(), expected, rtol=0, atol=1e-5)


def with_fused(asked: ClipParams, **changes: object) -> ClipParams:
    fused = FusedParams.model_validate({"size": [24, 32], "stride": 2, "radius": 2} | changes)
    return asked.model_copy(update={"fused": fused})


def test_the_store_has_the_logits_of_each_photo_at_each_level(
    tmp_path: Path, vit: DenseClip, asked: ClipParams, build: Build
) -> None:
    build("ab", params=with_fused(asked))
    store = PseudoMaskStore.open(tmp_path / "masks.zarr")
    text = vit.embed_text(SPACE.words({}), TEMPLATES)
    assert (store.keys, store.classes) == (["train/a", "train/b"], SPACE.names)
    assert (store.global_level, store.local_levels) == ("fused", ["local"])
    np.testing.assert_array_equal(store.text, text.numpy())
    for name, size in {"a": (22, 32), "b": (24, 20)}.items():  # 32x48 and 50x40 pixels fitted
        for level, how in LEVELS.items():
            expected = cover_slowly(photo_of(name), how, vit, text)
            read = store.read(f"train/{name}", level)
            np.testing.assert_allclose(read, expected, rtol=0, atol=1e-3)  # float16
        grids = [torch.from_numpy(store.read(f"train/{name}", level)) for level in LEVELS]
        wanted = fuse_levels(photo_of(name), grids, size=size, stride=2, radius=2)
        found = store.read(f"train/{name}", "fused")
        np.testing.assert_allclose(found, wanted.numpy(), rtol=0, atol=1e-3)


def test_fusing_otherwise_does_not_run_clip(
    vit: DenseClip, asked: ClipParams, build: Build
) -> None:
    plain = build("ab").files
    with windows_seen(vit) as seen:
        first = build("ab", params=with_fused(asked)).files
        other = build("ab", params=with_fused(asked, radius=1)).files
        assert seen == 2 * OF_PROBE
    changed = {name for name in first if first[name] != other.get(name)}
    assert {name.split("/")[0] for name in changed} == {"fused", "finished", "zarr.json"}
    kept = {name for name in plain if name.startswith(("global/logits/c", "local/logits/c"))}
    assert kept
    assert all(first[name] == plain[name] for name in kept)


def test_a_second_run_computes_nothing_and_gives_the_same_bytes(
    vit: DenseClip, build: Build
) -> None:
    first = build("ab").files
    with windows_seen(vit) as seen:
        assert build("ab").files == first
        assert seen == OF_PROBE
    assert build("ab", "elsewhere.zarr").files == first


def test_clip_runs_on_new_photos_only_and_each_is_computed_alone(
    tmp_path: Path, vit: DenseClip, build: Build
) -> None:
    with windows_seen(vit) as seen:
        build("d", "alone.zarr")
        of_one = list(seen)
        build("ab")
        seen.clear()
        grown = build("adb").files
        assert seen == of_one
    assert grown == build("adb", "scratch.zarr").files
    alone, together = (PseudoMaskStore.open(tmp_path / f"{n}.zarr") for n in ("alone", "masks"))
    for level in LEVELS:
        assert np.array_equal(alone.read("train/d", level), together.read("train/d", level))


def test_a_stopped_run_resumes_and_ends_with_the_same_bytes(
    tmp_path: Path, vit: DenseClip, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.store.plan.SHARD_PHOTOS", 1)
    undisturbed = build("abc", "undisturbed.zarr").files
    build("b")

    def kill_at_the_third(_: object, inputs: object) -> None:
        if len(seen) == len(OF_PROBE) + 3:
            raise KeyboardInterrupt

    with windows_seen(vit) as seen:
        hook = vit.model.visual.conv1.register_forward_pre_hook(kill_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            build("abc")
        hook.remove()
        assert PseudoMaskStore.open(tmp_path / "masks.zarr").keys == ["train/b"]
        seen.clear()
        assert build("abc").files == undisturbed
        assert len(seen) == len(OF_PROBE) + 2  # of a and c at two levels two were finished


def test_parts_are_computed_apart_and_a_run_without_part_only_finishes(
    tmp_path: Path,
    vit: DenseClip,
    asked: ClipParams,
    build: Build,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("pipeline.store.plan.SHARD_PHOTOS", 1)
    fused = with_fused(asked)
    undisturbed = build("abc", "undisturbed.zarr", params=fused).files
    assert "CLIP: 2 views to compute, 0 in the cache" in build("abc", params=fused, part="2/3").log
    assert "CLIP: 0 views to compute, 2 in the cache" in build("abc", params=fused, part="2/3").log
    build("abc", params=fused, part="3/3")
    [draft] = (tmp_path / "scratch").iterdir()
    with (
        FileLock(hidden_path(Part(1, 3).lock(draft), "lock")),  # as another process holds it
        pytest.raises(ValueError, match="part-1-of-3: another run is writing it"),
    ):
        build("abc", params=fused)
    build("abc", params=fused, part="1/3")
    assert not (tmp_path / "masks.zarr").exists()
    with windows_seen(vit) as seen:
        assert build("abc", params=fused).files == undisturbed
        assert seen == OF_PROBE
    build("abcd", part="1/2")
    [draft] = (tmp_path / "scratch").iterdir()
    (draft / "masks.zarr/zarr.json").write_text("{}")
    with pytest.raises(ValueError, match="remove it and start all parts again"):
        build("abcd", part="2/2")


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b"])
def test_a_part_is_a_number_of_a_total(text: str) -> None:
    with pytest.raises(ValueError, match=f"--part must be NUMBER/TOTAL, such as 2/8, got '{text}'"):
        Part.parse(text)


def test_links_and_damaged_stores_at_the_output_path_are_replaced(
    tmp_path: Path, build: Build
) -> None:
    expected = build("d", "cache").files
    (tmp_path / "masks.zarr").symlink_to(tmp_path / "cache")
    build("a")
    assert not (tmp_path / "masks.zarr").is_symlink()
    assert digests(tmp_path / "cache") == expected  # what the link led to is left alone
    (tmp_path / "damaged.zarr" / "global").mkdir(parents=True)
    (tmp_path / "damaged.zarr" / "zarr.json").write_text("null")
    (tmp_path / "file.zarr").write_text("x")
    assert build("d", "damaged.zarr").files == build("d", "file.zarr").files == expected
