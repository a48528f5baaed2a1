"""Probe logits: cached logits of code that computes other ones are not used again."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import pipeline.clip.last_block
import pipeline.clip.towers
import pipeline.clip.windows
import pipeline.guided_filter
from pipeline.clip.dense import DenseClip
from pipeline.clip.levels import REPAIRED, probe_logits
from pipeline.config.clip import ClipParams, FusedParams, LevelParams
from pipeline.store.checks import PROBE_FILE, differences, read_probe
from tests.clip.conftest import Build
from tests.helpers.clip_photos import LEVELS, SPACE, TEMPLATES

AGAIN = "its code computes other logits"


@pytest.fixture
def asked(asked: ClipParams) -> ClipParams:
    fused = FusedParams(size=(24, 32), stride=2, radius=2)
    return asked.model_copy(update={"fused": fused})


def scale_positions(monkeypatch: pytest.MonkeyPatch, factor: float = 1.03) -> None:
    before = pipeline.clip.towers._positions
    monkeypatch.setattr(pipeline.clip.towers, "_positions", lambda *args: before(*args) * factor)


def change_blending(monkeypatch: pytest.MonkeyPatch) -> None:
    def blend(patches: torch.Tensor, boxes: Any, *, size: tuple[int, int]) -> torch.Tensor:
        whole = patches.new_zeros(patches.shape[1], *size)
        for patch, (top, left, height, width) in zip(patches, boxes, strict=True):
            whole[:, top : top + height, left : left + width] = patch  # the last one wins
        return whole

    monkeypatch.setattr(pipeline.clip.windows, "blend", blend)


@pytest.mark.parametrize("change", [scale_positions, change_blending])
def test_all_logits_are_computed_again_when_a_formula_changed(
    build: Build,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[pytest.MonkeyPatch], None],
) -> None:
    before = build("ab").files
    change(monkeypatch)
    files, log = build("ab")
    assert f"masks.zarr: {AGAIN} (global by " in log
    assert "all logits are computed again" in log
    assert "CLIP: 4 views to compute, 0 in the cache" in log
    assert files != before
    assert "CLIP: 0 views to compute" in build("ab").log


def test_a_changed_outlier_repair_is_noticed(
    tmp_path: Path,
    vit: DenseClip,
    build: Build,
    monkeypatch: pytest.MonkeyPatch,
    asked: ClipParams,
) -> None:
    monkeypatch.setattr(vit, "repair", True)
    repaired = asked.model_copy(update={"repair_outliers": True})
    build("a", params=repaired)
    assert REPAIRED in read_probe(tmp_path / "masks.zarr")
    for share in (0.045, 0.055):
        monkeypatch.setattr(pipeline.clip.last_block, "SHARE", share)
        assert f"{AGAIN} ({REPAIRED} by " in build("a", params=repaired).log


def test_a_changed_filter_leaves_the_other_levels(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    build("ab")
    monkeypatch.setattr(pipeline.guided_filter, "EPSILON", 2e-4)
    log = build("ab").log
    assert f"{AGAIN} (fused by " in log
    assert "the fused level is computed again" in log
    assert "CLIP: 0 views to compute" in log
    assert "fuse: 2 views to compute" in log


def test_rounding_and_other_parameters_are_not_taken_for_other_code(
    build: Build, monkeypatch: pytest.MonkeyPatch, asked: ClipParams
) -> None:
    before = build("ab").files
    with monkeypatch.context() as patch:
        scale_positions(patch, 1 + 2e-6)
        files, log = build("ab")
    assert AGAIN not in log
    assert files == before
    wider = LEVELS["local"].model_copy(update={"overlap": 0.5})
    log = build("ab", params=asked.model_copy(update={"levels": LEVELS | {"local": wider}})).log
    assert AGAIN not in log
    assert "CLIP: 2 views to compute, 2 in the cache" in log


def test_a_store_without_a_probe_is_kept_and_gets_one(
    build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.store.writer.write_probe", lambda *_: None)  # as earlier versions
        before = build("ab").files
    assert PROBE_FILE not in before
    after, log = build("ab")
    assert "CLIP: 0 views to compute" in log
    assert after.keys() - before.keys() == {PROBE_FILE}
    assert {name for name in before if before[name] != after[name]} == {"finished/layout.json"}


def test_a_draft_of_other_code_is_started_again(
    tmp_path: Path, build: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pipeline.clip.build_store._fuse_levels", stop)
        with pytest.raises(KeyboardInterrupt):
            build("ab")
    kept = shutil.copytree(tmp_path / "scratch", tmp_path / "kept")
    assert "CLIP: 0 views to compute, 4 in the cache" in build("ab").log
    shutil.rmtree(tmp_path / "masks.zarr")
    shutil.copytree(kept, tmp_path / "scratch", dirs_exist_ok=True)
    scale_positions(monkeypatch)
    log = build("ab").log
    assert f"{AGAIN} (they differ by " in log
    assert "starting again" in log
    assert "CLIP: 4 views to compute" in log


@pytest.mark.parametrize(
    ("zoom", "window"), [(0.05, (16, 16)), (0.7, (1024, 2048)), (16.0, (512, 32))]
)
def test_a_probe_is_small_at_any_level(
    vit: DenseClip, asked: ClipParams, zoom: float, window: tuple[int, int]
) -> None:
    level = LevelParams(zoom=zoom, window=window, overlap=0.5)
    few = asked.model_copy(update={"levels": {"global": level}})
    probe = probe_logits(vit, vit.embed_text(SPACE.words({}), TEMPLATES), few)
    cells = [min(5, side // 16) for side in window]
    assert probe["global"].shape == (11, cells[0] + 1, cells[1] + 4)
    assert probe["fused"].shape == (11, 10, 14)
    assert np.isfinite(probe["global"]).all()


def test_probes_are_compared_within_a_tolerance_by_hand() -> None:
    old = {"a": np.array([[0.5, 0.25]]), "b": np.zeros((1, 2)), "gone": np.zeros(1)}
    new = {"a": np.array([[0.5, 0.25009]]), "b": np.array([[0.0, -0.01]]), "new": np.ones(1)}
    assert differences(old, new) == {"b": 0.01}
    assert differences({"a": np.zeros(2)}, {"a": np.zeros(3)}) == {"a": np.inf}
    assert list(differences({"a": np.zeros(1)}, {"a": np.array([np.nan])})) == ["a"]
