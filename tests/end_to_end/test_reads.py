"""Files and parameters that each stage reads, compared with dvc.yaml."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipeline.config.params import load_params
from pipeline.system.files import LIST
from tests.helpers import ROOT
from tests.helpers.recorded_reads import opened_files, read_parameters
from tests.helpers.small_photos import random_segmenter
from tests.helpers.tiny_run import APPS, TINY, prepare_folder, run_stage, write_params

STAGES: dict[str, Any] = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
NAMED = {
    "dataset.image_labels": "labels.csv",
    "segmenter.encoder_weights": "clip",
    "train.steps": 4,
    "train.preview_every": 4,
    "distillation.steps": 3,
    "distillation.batch_size": 2,
    "eval.photos": "half.txt",
    "relabel.rounds": 1,
    "segmenter.weights": "earlier",
}
AS_DVC = {"draw": ("--params", "params.yaml")}
# What is read but not listed in dvc.yaml, and why no change is missed.
PHOTOS = "data/demo"  # data/scenes.json has their digests, and `pseudo` and `train` compare them;
# data/inputs/prepare, eval and eval_pseudo contain a manifest of them (tests/datasets)
UNWATCHED_FILES = {
    stage: {PHOTOS}
    for stage in ("prepare", "pseudo", "encoder", "relabel", "train", "eval", "eval_pseudo")
}
WHERE = {"dataset.root"}  # the path of the photos, not their content
SPEED = {"train.workers"}
REFUSED = {"dataset.name"}  # with a CLIP of drawings; data/scenes.json changes with it
PARAMS = load_params(ROOT / "params.yaml")
CLIP = {f"clip.{name}" for name in PARAMS.clip.model_dump()}
# `settings_of_fold` sets them; no checkpoint changes a result
OF_FOLD = {f"carb.{name}" for name in PARAMS.carb.model_dump()} | {"seed"}
OF_FOLD |= {f"train.{name}" for name in ("steps", "local_term", "preview_every", "snapshots")}
OF_FOLD |= {"segmenter.weights"}
UNWATCHED = {
    "pseudo": WHERE | REFUSED,
    "encoder": WHERE | SPEED | REFUSED,
    "relabel": WHERE | SPEED | CLIP | OF_FOLD | {"train.checkpoint_every"},
    "train": WHERE | CLIP,  # data/masks.zarr is made from them, and its recipe is compared
}


@dataclass(frozen=True)
class Reads:
    """Files that a stage opened, relative to the project, and parameters that it read."""

    files: set[str]
    parameters: set[str]


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reads]:
    """Run all stages in a project whose params.yaml names a file of each kind."""
    folder, found = tmp_path_factory.mktemp("reads"), {}
    prepare_folder(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in ("draw", "prepare"):
            assert run_stage(stage).exit_code == 0
        shutil.copy("data/image_labels.csv", "labels.csv")
        Path("half.txt").write_text("val/00000\n")
        options = TINY["segmenter.options"]
        random_segmenter(Path("earlier"), encoder=TINY["segmenter.encoder"], options=options)
        write_params(folder, NAMED)
        for stage in APPS:
            with opened_files() as files, read_parameters() as parameters:
                result = run_stage(stage, *AS_DVC.get(stage, ()))
            assert result.exit_code == 0, result.output
            inside = {path for path in files if path.is_relative_to(folder) and path.is_file()}
            inside = {path for path in inside if path.name != LIST}  # of outputs, not an input
            names = {path.relative_to(folder).as_posix() for path in inside}
            found[stage] = Reads(names, set(parameters))
    return found


def below(path: str, folders: set[str]) -> bool:
    return any(path == folder or path.startswith(f"{folder}/") for folder in folders)


def outs(stage: str) -> set[str]:
    every = STAGES[stage]["outs"] + STAGES[stage].get("metrics", [])
    return {out if isinstance(out, str) else next(iter(out)) for out in every}


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_reads_what_dvc_yaml_lists_for_it(reads: dict[str, Reads], stage: str) -> None:
    watched = set(STAGES[stage]["deps"])
    linked = {
        "prepare": {"labels.csv"},
        "pseudo": {"clip"},
        "encoder": {"clip"},
        "train": {"earlier"},
        "eval": {"half.txt"},
        "eval_pseudo": {"half.txt"},
        "inputs": {"labels.csv", "clip", "half.txt", "earlier"},
    }
    if f"data/inputs/{stage}" in watched or stage == "inputs":
        watched |= linked[stage]
    own = {"params.yaml", "scratch", *outs(stage), *UNWATCHED_FILES.get(stage, set())}
    assert {path for path in reads[stage].files if not below(path, watched | own)} == set()
    params, read = set(STAGES[stage].get("params", [])), reads[stage].parameters
    others = read - UNWATCHED.get(stage, set())
    assert {name for name in others if not {name, name.split(".")[0]} & params} == set()
    idle = {name for name in params if not any(f"{one}.".startswith(f"{name}.") for one in read)}
    assert idle <= {"clip.pretrained"}  # read where clip.model is no folder


def test_every_exception_is_needed(reads: dict[str, Reads]) -> None:
    for stage, names in UNWATCHED.items():
        read = {name.split(".")[0] for name in reads[stage].parameters}
        assert {name.split(".")[0] for name in names} <= read
    for stage, folders in UNWATCHED_FILES.items():
        assert any(below(path, folders) for path in reads[stage].files)
