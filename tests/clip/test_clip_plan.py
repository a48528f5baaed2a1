"""What a store must hold depends on all that makes a logit, and on nothing else."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipeline.clip.build_store import plan_store
from pipeline.clip.dense import DenseClip, load_clip
from pipeline.config.clip import ClipParams
from pipeline.config.params import Params
from pipeline.scenes.index import IndexedPhoto, SceneIndex
from pipeline.store.plan import Plan
from pipeline.system.files import file_digest
from tests.helpers import clip_folder
from tests.helpers.clip_photos import LEVELS, SIZES, SPACE, TEMPLATES, asked_of, index_of, photo_of


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> DenseClip:
    return clip_folder.random_clip(tmp_path_factory.mktemp("vit"), clip_folder.VIT)


@pytest.fixture
def asked(params: Params) -> ClipParams:
    return asked_of(params)


def plan_with(clip: DenseClip, index: SceneIndex, params: ClipParams, **changes: object) -> Plan:
    settings: dict[str, Any] = {"templates": TEMPLATES, "precision": "32-true"}
    return plan_store(index, clip, params=params, **(settings | changes))


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
    worded = asked.model_copy(update={"class_prompts": {"car": ["automobile"]}})
    zoomed = {**LEVELS, "local": LEVELS["local"].model_copy(update={"zoom": 1.5})}
    lapped = {**LEVELS, "global": LEVELS["global"].model_copy(update={"overlap": 0.25})}
    photo_of("d").resize((48, 32)).save(tmp_path / "data/train/a.png")
    digest = file_digest(tmp_path / "data/train/a.png")
    first = IndexedPhoto("train/a", "train", "train/a.png", SIZES["a"], digest)
    plans = [
        plan_with(moved, index, asked),
        plan_with(clip, index, worded),
        plan_with(clip, index, asked, templates=["the {}."]),
        plan_with(clip, index, asked, precision="bf16-mixed"),
        plan_with(clip, index, asked.model_copy(update={"levels": zoomed})),
        plan_with(clip, index, asked.model_copy(update={"levels": lapped})),
        plan_with(clip, index_of(tmp_path / "other", "abc"), asked),
        plan_with(clip, SceneIndex(SPACE, [first, index.photos[1]]), asked),
    ]
    assert len({base, *(plan.fingerprint() for plan in plans)}) == 1 + len(plans)


def test_a_recipe_is_the_same_once_it_was_stored(
    tmp_path: Path, clip: DenseClip, asked: ClipParams
) -> None:
    recipe = plan_with(clip, index_of(tmp_path, "a"), asked).recipe
    assert json.loads(json.dumps(recipe)) == recipe
