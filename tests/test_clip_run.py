"""CLIP over every photo once: blended by hand, repeatable to the byte, asked for nothing twice."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import clip_folder
import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from tiny_store import digests

import pipeline.windows
from pipeline.clip_dense import DenseClip, load_clip
from pipeline.clip_run import make_store, plan_store
from pipeline.config import ClipParams, FusedParams, LevelParams, Params
from pipeline.edges import fuse
from pipeline.files import file_digest
from pipeline.index import IndexedPhoto, SceneIndex
from pipeline.label_spaces import LABEL_SPACES
from pipeline.store import Plan, PseudoMaskStore
from pipeline.views import cover
from pipeline.windows import cover_features, magnified

SPACE = LABEL_SPACES["camvid"]
TEMPLATES = ["a photo of a {}."]
LEVELS = {
    "global": LevelParams(zoom=1.0, window=(32, 32), overlap=0.5),
    "local": LevelParams(zoom=2.0, window=(64, 32), overlap=0.25),
}
SIZES = {"a": (32, 48), "b": (50, 40), "c": (32, 48), "d": (16, 60)}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> DenseClip:
    return clip_folder.random_clip(tmp_path_factory.mktemp("vit"), clip_folder.VIT)


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return Fabric(accelerator="cpu", devices=1, precision="32-true")


@pytest.fixture
def asked(params: Params) -> ClipParams:
    """What CLIP is asked, with windows that fit the small photos."""
    return params.clip.model_copy(update={"levels": LEVELS, "precision": "32-true"})


def photo_of(name: str) -> Image.Image:
    """A photo of noise, smooth enough to survive magnification."""
    noise = np.random.default_rng(ord(name)).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    height, width = SIZES[name]
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def index_of(root: Path, names: str) -> SceneIndex:
    """Write the photos under ``root`` and index them, in the order of ``names``."""
    photos = []
    for name in names:
        path = root / "train" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo_of(name).save(path)
        photos.append(
            IndexedPhoto(
                f"train/{name}", "train", f"train/{name}.png", SIZES[name], file_digest(path)
            )
        )
    return SceneIndex(SPACE, photos)


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
        make_store(
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


def cover_slowly(
    image: Image.Image, level: LevelParams, clip: DenseClip, text: torch.Tensor
) -> np.ndarray:
    """One window at a time, one cell at a time."""
    height, width = (max(1, round(side * level.zoom / 16)) for side in (image.height, image.width))
    resized = image.resize((16 * width, 16 * height), Image.Resampling.BICUBIC)
    pixels = (np.asarray(resized) / 255 - clip.mean) / clip.std  # [H, W, 3]
    found: dict[tuple[int, int], list[np.ndarray]] = {}
    size = (16 * height, 16 * width)
    for box in cover(size, window=level.window, overlap=level.overlap, patch_size=16):
        top, left, high, wide = (int(edge) for edge in box)
        window = torch.from_numpy(pixels[top : top + high, left : left + wide]).float()
        logits = clip.patch_logits(window.permute(2, 0, 1)[None], text)[0].numpy()
        for row, column in np.ndindex(*logits.shape[1:]):
            cell = (top // 16 + row, left // 16 + column)
            found.setdefault(cell, []).append(logits[:, row, column])
    blended = np.zeros((len(text), height, width))
    for (row, column), values in found.items():
        blended[:, row, column] = np.mean(values, axis=0)
    assert len(found) == height * width
    return blended


@pytest.mark.parametrize("pixels_a_call", [2**23, 2 * 32 * 32, 1])
@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("name", SIZES)
def test_a_photo_is_covered_by_windows_and_each_cell_is_their_mean(
    monkeypatch: pytest.MonkeyPatch, clip: DenseClip, name: str, level: str, pixels_a_call: int
) -> None:
    monkeypatch.setattr(pipeline.windows, "PIXELS_A_CALL", pixels_a_call)
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
    assert (store.levels, store.near, store.far) == (
        ["global", "local", "fused"],
        "fused",
        ["local"],
    )
    for name, size in {"a": (22, 32), "b": (24, 20)}.items():  # 32x48 and 50x40 pixels fitted
        grids = [torch.from_numpy(store.read(f"train/{name}", level)) for level in LEVELS]
        wanted = fuse(photo_of(name), grids, size=size, stride=2, radius=2)
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
        assert seen == []
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
        assert seen == []
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
    monkeypatch.setattr("pipeline.store.SHARD_PHOTOS", 1)
    undisturbed = make("abc", "undisturbed.zarr")
    make("b")

    def kill_at_the_third(_: object, inputs: object) -> None:
        if len(seen) == 3:
            raise KeyboardInterrupt

    with windows_seen(clip) as seen:
        hook = clip.model.visual.conv1.register_forward_pre_hook(kill_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            make("abc")
        hook.remove()
        assert PseudoMaskStore.open(tmp_path / "masks.zarr").keys == ["train/b"]
        seen.clear()
        assert make("abc") == undisturbed
        assert len(seen) == 2  # of a and c at two levels two were finished


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


def plan_with(clip: DenseClip, index: SceneIndex, params: ClipParams, **changes: object) -> Plan:
    settings: dict[str, object] = {
        "words": SPACE.words({}),
        "templates": TEMPLATES,
        "precision": "32-true",
    }
    return plan_store(index, clip, params=params, classes=SPACE.names, **(settings | changes))  # type: ignore[arg-type]


def test_a_plan_has_the_grids_of_the_magnified_photos(
    tmp_path: Path, clip: DenseClip, asked: ClipParams
) -> None:
    plan = plan_with(clip, index_of(tmp_path, "abd"), asked)
    assert plan.grids == {
        "global": [(2, 3), (3, 2), (1, 4)],
        "local": [(4, 6), (6, 5), (2, 8)],
    }


def test_a_plan_is_named_by_all_that_determines_a_logit(
    tmp_path: Path, clip: DenseClip, asked: ClipParams
) -> None:
    index = index_of(tmp_path / "data", "ab")
    base = plan_with(clip, index, asked).fingerprint()
    assert plan_with(clip, index_of(tmp_path / "moved", "ab"), asked).fingerprint() == base
    config = clip_folder.model_config(clip_folder.VIT)
    weights = clip_folder.random_weights(config)
    weights["visual.proj"][0, 0] += 1e-3
    moved = load_clip(clip_folder.write_clip(tmp_path / "clip", config, weights), None)
    words = SPACE.words({"car": ["automobile"]})
    zoomed = {**LEVELS, "local": LEVELS["local"].model_copy(update={"zoom": 1.5})}
    lapped = {**LEVELS, "global": LEVELS["global"].model_copy(update={"overlap": 0.25})}
    photo_of("d").resize((48, 32)).save(tmp_path / "data/train/a.png")
    digest = file_digest(tmp_path / "data/train/a.png")
    first = IndexedPhoto("train/a", "train", "train/a.png", SIZES["a"], digest)
    plans = [
        plan_with(moved, index, asked),
        plan_with(clip, index, asked, words=words),
        plan_with(clip, index, asked, templates=["the {}."]),
        plan_with(clip, index, asked, precision="bf16-mixed"),
        plan_with(clip, index, asked.model_copy(update={"levels": zoomed})),
        plan_with(clip, index, asked.model_copy(update={"levels": lapped})),
        plan_with(clip, index_of(tmp_path / "other", "abc"), asked),
        plan_with(clip, SceneIndex(SPACE, [first, index.photos[1]]), asked),
    ]
    assert len({base, *(plan.fingerprint() for plan in plans)}) == 1 + len(plans)


def test_a_plan_does_not_depend_on_image_labels(
    tmp_path: Path, clip: DenseClip, params: Params
) -> None:
    index = index_of(tmp_path, "ab")
    fingerprints = set()
    for labels in (None, "labels.csv"):
        content = params.model_dump() | {"seed": 3}
        content["dataset"]["image_labels"] = labels
        changed = Params.model_validate(content)
        fingerprints.add(plan_with(clip, index, changed.clip).fingerprint())
    assert len(fingerprints) == 1


def test_a_recipe_is_the_same_once_it_was_stored(
    tmp_path: Path, clip: DenseClip, asked: ClipParams
) -> None:
    recipe = plan_with(clip, index_of(tmp_path, "a"), asked).recipe
    assert json.loads(json.dumps(recipe)) == recipe
