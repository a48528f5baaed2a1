"""The plan of a store depends on everything that determines a logit, and on nothing else."""

import json
from pathlib import Path
from typing import Any

from pipeline.clip.build_store import plan_store
from pipeline.clip.dense import DenseClip
from pipeline.config.clip import ClipParams
from pipeline.scenes.index import IndexedPhoto, SceneIndex
from pipeline.store.plan import Plan
from tests.helpers import clip_folder
from tests.helpers.clip_photos import LEVELS, SIZES, SPACE, TEMPLATES, index_of


def plan_with(clip: DenseClip, index: SceneIndex, params: ClipParams, **changes: Any) -> Plan:
    settings: dict[str, Any] = {"templates": TEMPLATES, "precision": "32-true"} | changes
    return plan_store(index, clip, params=params, **settings)


def test_a_plan_has_the_grids_of_the_magnified_photos_and_a_recipe_that_json_keeps(
    tmp_path: Path, vit: DenseClip, asked: ClipParams
) -> None:
    plan = plan_with(vit, index_of(tmp_path, "abd"), asked)
    assert plan.grids == {
        "global": [(2, 3), (3, 2), (1, 4)],
        "local": [(4, 6), (6, 5), (2, 8)],
    }
    assert json.loads(json.dumps(plan.recipe)) == plan.recipe


def test_everything_that_determines_a_logit_changes_the_fingerprint(
    tmp_path: Path, vit: DenseClip, asked: ClipParams
) -> None:
    index = index_of(tmp_path / "data", "ab")
    base = plan_with(vit, index, asked).fingerprint()
    assert plan_with(vit, index_of(tmp_path / "moved", "ab"), asked).fingerprint() == base
    other = clip_folder.random_clip(tmp_path / "clip", clip_folder.VIT)
    other.model.visual.proj.data[0, 0] += 1e-3
    worded = asked.model_copy(update={"class_prompts": {"car": ["automobile"]}})
    zoomed = {**LEVELS, "local": LEVELS["local"].model_copy(update={"zoom": 1.5})}
    lapped = {**LEVELS, "global": LEVELS["global"].model_copy(update={"overlap": 0.25})}
    edited = IndexedPhoto("train/a", "train", "train/a.png", SIZES["a"], "digest of other bytes")
    plans = [
        plan_with(other, index, asked),
        plan_with(vit, index, worded),
        plan_with(vit, index, asked, templates=["the {}."]),
        plan_with(vit, index, asked, precision="bf16-mixed"),
        plan_with(vit, index, asked.model_copy(update={"levels": zoomed})),
        plan_with(vit, index, asked.model_copy(update={"levels": lapped})),
        plan_with(vit, index_of(tmp_path / "other", "abc"), asked),
        plan_with(vit, SceneIndex(SPACE, [edited, index.photos[1]]), asked),
    ]
    assert len({base, *(plan.fingerprint() for plan in plans)}) == 1 + len(plans)
