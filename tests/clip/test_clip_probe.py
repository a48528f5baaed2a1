"""Logits of other code are not used again: the probe in the store tells, whatever was forgotten."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric

import pipeline.clip.last_block
import pipeline.clip.towers
import pipeline.clip.windows
import pipeline.guided_filter
from pipeline.clip.build_store import build_store
from pipeline.clip.dense import DenseClip
from pipeline.clip.levels import REPAIRED, probe_logits
from pipeline.config.clip import ClipParams, FusedParams, LevelParams
from pipeline.config.params import Params
from pipeline.store.checks import PROBE_FILE as FILE
from pipeline.store.checks import differences, read_probe
from tests.helpers import clip_folder
from tests.helpers.clip_photos import LEVELS, SPACE, TEMPLATES, asked_of, index_of
from tests.helpers.tiny_store import digests

AGAIN = "its code computes other logits"


@pytest.fixture
def clip(tmp_path: Path) -> DenseClip:
    return clip_folder.random_clip(tmp_path / "vit", clip_folder.VIT)


@pytest.fixture
def asked(params: Params) -> ClipParams:
    fused = FusedParams(size=(24, 32), stride=2, radius=2)
    return asked_of(params).model_copy(update={"fused": fused})


Make = Callable[..., str]


@pytest.fixture
def make(
    tmp_path: Path, clip: DenseClip, asked: ClipParams, caplog: pytest.LogCaptureFixture
) -> Make:
    """Bring ``masks.zarr`` up to date; what was said of it."""
    fabric = Fabric(accelerator="cpu", devices=1, precision="32-true")

    def run(names: str = "ab", params: ClipParams = asked) -> str:
        caplog.clear()
        with caplog.at_level("INFO", "carb"):
            build_store(
                fabric,
                clip,
                index_of(tmp_path / "data", names),
                root=tmp_path / "data",
                params=params,
                templates=TEMPLATES,
                out=tmp_path / "masks.zarr",
                scratch=tmp_path / "scratch",
            )
        return caplog.text

    return run


def scaled(monkeypatch: pytest.MonkeyPatch, module: Any, name: str, factor: float) -> None:
    """Let a function of a module give more than it did."""
    before = getattr(module, name)
    monkeypatch.setattr(module, name, lambda *args, **more: before(*args, **more) * factor)


def last_block(monkeypatch: pytest.MonkeyPatch) -> None:
    before = pipeline.clip.towers.dense_block

    def dense_block(block: Any, tokens: torch.Tensor, *rest: Any) -> torch.Tensor:
        return before(block, tokens, *rest) + 0.03 * tokens[:, 1:]

    monkeypatch.setattr(pipeline.clip.towers, "dense_block", dense_block)


def positions(monkeypatch: pytest.MonkeyPatch) -> None:
    scaled(monkeypatch, pipeline.clip.towers, "_positions", 1.03)


def blending(monkeypatch: pytest.MonkeyPatch) -> None:
    def blend(patches: torch.Tensor, boxes: Any, *, size: tuple[int, int]) -> torch.Tensor:
        whole = patches.new_zeros(patches.shape[1], *size)
        for patch, (top, left, height, width) in zip(patches, boxes, strict=True):
            whole[:, top : top + height, left : left + width] = patch  # the last one wins
        return whole

    monkeypatch.setattr(pipeline.clip.windows, "blend", blend)


@pytest.mark.parametrize("change", [last_block, positions, blending])
def test_clip_looks_again_when_a_formula_changed(
    tmp_path: Path,
    make: Make,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[pytest.MonkeyPatch], None],
) -> None:
    make()
    before = digests(tmp_path / "masks.zarr")
    change(monkeypatch)
    said = make()
    assert f"masks.zarr: {AGAIN} (global by " in said
    assert "all logits are computed again" in said
    assert "CLIP: 4 views to compute, 0 in the cache" in said
    assert digests(tmp_path / "masks.zarr") != before
    assert "CLIP: 0 views to compute" in make()


def test_another_repair_is_noticed_where_no_patch_of_the_picture_outlies(
    tmp_path: Path, clip: DenseClip, make: Make, monkeypatch: pytest.MonkeyPatch, asked: ClipParams
) -> None:
    clip.repair = True
    repaired = asked.model_copy(update={"repair_outliers": True})
    make(params=repaired)
    assert REPAIRED in read_probe(tmp_path / "masks.zarr")
    for share in (0.045, 0.055):
        monkeypatch.setattr(pipeline.clip.last_block, "SHARE", share)
        assert f"{AGAIN} ({REPAIRED} by " in make(params=repaired)


def test_another_way_to_fuse_leaves_the_other_levels(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    monkeypatch.setattr(pipeline.guided_filter, "EPSILON", 2e-4)
    said = make()
    assert f"{AGAIN} (fused by " in said
    assert "the fused level is computed again" in said
    assert "CLIP: 0 views to compute" in said
    assert "fuse: 2 views to compute" in said


def test_what_processors_round_otherwise_changes_no_byte(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    make()
    before = digests(tmp_path / "masks.zarr")
    scaled(monkeypatch, pipeline.clip.towers, "_positions", 1 + 2e-6)
    said = make()
    assert AGAIN not in said
    assert "CLIP: 0 views to compute" in said
    assert digests(tmp_path / "masks.zarr") == before


def test_a_store_without_a_probe_is_kept_and_gets_one(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.store.writer.write_probe", lambda *_: None)  # as it was
    make()
    before = digests(tmp_path / "masks.zarr")
    assert FILE not in before
    monkeypatch.undo()
    assert "CLIP: 0 views to compute" in make()
    after = digests(tmp_path / "masks.zarr")
    assert after.keys() - before.keys() == {FILE}
    assert {name for name in before if before[name] != after[name]} == {"finished/layout.json"}


def test_a_draft_of_other_code_is_started_again(
    tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.clip.build_store._fuse_levels", stop)
        with pytest.raises(KeyboardInterrupt):
            make()
    kept = shutil.copytree(tmp_path / "scratch", tmp_path / "kept")
    assert "CLIP: 0 views to compute, 4 in the cache" in make()
    shutil.rmtree(tmp_path / "masks.zarr")
    shutil.copytree(kept, tmp_path / "scratch", dirs_exist_ok=True)
    positions(monkeypatch)
    said = make()
    assert f"{AGAIN} (they differ by " in said
    assert "starting again" in said
    assert "CLIP: 4 views to compute" in said


def test_other_parameters_are_not_taken_for_other_code(make: Make, asked: ClipParams) -> None:
    make()
    wider = LEVELS["local"].model_copy(update={"overlap": 0.5})
    said = make(params=asked.model_copy(update={"levels": LEVELS | {"local": wider}}))
    assert AGAIN not in said
    assert "CLIP: 2 views to compute, 2 in the cache" in said


@pytest.mark.parametrize("zoom", [0.05, 0.7, 1.0, 16.0])
@pytest.mark.parametrize("window", [(16, 16), (512, 32), (1024, 2048)])
def test_a_probe_is_small_at_any_level(
    clip: DenseClip, asked: ClipParams, zoom: float, window: tuple[int, int]
) -> None:
    level = LevelParams(zoom=zoom, window=window, overlap=0.5)
    few = asked.model_copy(update={"levels": {"global": level}})
    probe = probe_logits(clip, clip.embed_text(SPACE.words({}), TEMPLATES), few)
    cells = [min(5, side // 16) for side in window]
    assert probe["global"].shape == (11, cells[0] + 1, cells[1] + 4)
    assert probe["fused"].shape == (11, 10, 14)
    assert np.isfinite(probe["global"]).all()


def test_towers_that_are_no_transformers_are_probed(tmp_path: Path, asked: ClipParams) -> None:
    clip = clip_folder.random_clip(tmp_path / "resnet", clip_folder.RESNET)
    level = LevelParams(zoom=1.0, window=(64, 64), overlap=0.5)
    few = asked.model_copy(update={"levels": {"global": level}, "fused": None})
    probe = probe_logits(clip, clip.embed_text(SPACE.words({}), TEMPLATES), few)
    assert probe["global"].shape == (11, 3, 6)


def test_probes_are_compared_within_a_tolerance_by_hand() -> None:
    old = {"a": np.array([[0.5, 0.25]]), "b": np.zeros((1, 2)), "gone": np.zeros(1)}
    new = {"a": np.array([[0.5, 0.25009]]), "b": np.array([[0.0, -0.01]]), "new": np.ones(1)}
    assert differences(old, new) == {"b": 0.01}
    assert differences({"a": np.zeros(2)}, {"a": np.zeros(3)}) == {"a": np.inf}
    assert list(differences({"a": np.zeros(1)}, {"a": np.array([np.nan])})) == ["a"]
