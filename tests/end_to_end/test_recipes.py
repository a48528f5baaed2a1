"""Recipes, run to the end on miniatures of their data sets."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import segmentation_models_pytorch as smp
from PIL import Image

from bench.settings import write_changed
from pipeline.config.params import load_params
from pipeline.datasets.wilddash2 import split_of
from tests.helpers import ROOT
from tests.helpers.tiny_run import run_stage, write_random_clip

SIZES: dict[str, Any] = {
    "dataset.root": "photos",
    "clip.model": "local-dir:clip",
    "clip.pretrained": None,
    "clip.levels": {
        "global": {"zoom": 1.0, "window": [64, 64], "overlap": 0.5},
        "local": {"zoom": 2.0, "window": [64, 64], "overlap": 0.5},
    },
    "views.base_size": [64, 128],
    "views.crop": [64, 64],
    "views.local_window": [32, 32],
    "segmenter.encoder_weights": "none",  # ImageNet's are a download
    "carb.warmup_steps": None,
    "carb.warmup_share": 0.5,
    "train.steps": 2,
    "train.batch_size": 2,
    "train.workers": 0,
    "train.checkpoint_every": 1,
    "train.preview_every": 2,
}
PHOTOS = {"train": 3, "val": 2}


def photo(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (4, 8, 3), dtype=np.uint8)
    Image.fromarray(noise).resize((128, 64)).save(path)


def mask(path: Path, values: list[Any]) -> None:
    """Stripes of ids or colours."""
    path.parent.mkdir(parents=True, exist_ok=True)
    stripes = np.array([values[column * len(values) // 128] for column in range(128)], np.uint8)
    Image.fromarray(np.repeat(stripes[None], 64, axis=0)).save(path)


def cityscapes(root: Path) -> None:
    for split, count in PHOTOS.items():
        for frame in (f"ulm/ulm_{number:06d}_000019" for number in range(count)):
            photo(root / "leftImg8bit" / split / f"{frame}_leftImg8bit.png", len(frame))
            mask(root / "gtFine" / split / f"{frame}_gtFine_labelIds.png", [7, 11, 0, 26])


def original_camvid(root: Path) -> None:
    for name in ("0001TP_006690", "0001TP_006720", "0006R0_f00930", "0016E5_07959"):
        photo(root / "701_StillsRaw_full" / f"{name}.png", 0)
        mask(
            root / "LabeledApproved_full" / f"{name}_L.png",
            [(128, 64, 128), (0, 0, 0), (64, 0, 128)],
        )


def wilddash2(root: Path) -> None:
    names = [f"aa{number:04d}_100000" for number in range(30)]
    chosen = [name for name in names if split_of(name) == "val"][:2]
    chosen += [name for name in names if split_of(name) == "train"][:3]
    info = [{"id": 5, "category_id": 7}, {"id": 6, "category_id": 26}]
    for name in chosen:
        photo(root / "images" / f"{name}.jpg", 0)
        mask(root / "panoptic" / f"{name}.png", [(5, 0, 0), (6, 0, 0), (0, 0, 0)])
    entries = [{"file_name": f"{name}.png", "segments_info": info} for name in chosen]
    (root / "panoptic.json").write_text(json.dumps({"annotations": entries}))


def own_photos(root: Path) -> None:
    rows = ["key,road,tree,car"]
    for number in range(3):
        photo(root / "images" / "train" / f"{number}.jpg", number)
        rows.append(f"{number}.jpg,1,{number % 2},1")
    photo(root / "images" / "val" / "3.jpg", 3)
    mask(root / "masks" / "val" / "3.png", [0, 1, 2, 255])
    (root / "image_labels.csv").write_text("\n".join(rows))
    (root / "classes.csv").write_text("class,words\nroad,\ntree,tree|bush\ncar,\n")


MINIATURES: dict[str, tuple[Callable[[Path], None], int]] = {
    "cityscapes-best": (cityscapes, 19),
    "camvid-paper": (original_camvid, 11),
    "wilddash2": (wilddash2, 25),
    "folder": (own_photos, 3),
}
SIMILAR = {"cityscapes", "camvid-best", "camvid", "demo-paper"}  # to one of those or params.yaml


def test_every_recipe_is_valid_and_has_a_miniature_or_is_similar_to_one() -> None:
    recipes = {path.stem for path in (ROOT / "recipes").glob("*.yaml")}
    assert recipes == MINIATURES.keys() | SIMILAR
    for recipe in SIMILAR:
        load_params(ROOT / "recipes" / f"{recipe}.yaml")


@pytest.mark.parametrize("recipe", MINIATURES)
def test_a_recipe_runs_to_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recipe: str
) -> None:
    make, num_classes = MINIATURES[recipe]
    make(tmp_path / "photos")
    write_random_clip(tmp_path)
    sizes, stages = SIZES, ["prepare", "pseudo", "encoder", "train", "eval"]
    if recipe == "folder":
        stages += ["inputs", "eval_pseudo", "report"]
    else:
        sizes = sizes | {"clip.templates": "plain"}
    if recipe != "camvid-paper":
        sizes = sizes | {"segmenter.encoder": "resnet18"}
    if recipe.endswith("-best"):
        sizes = sizes | {"clip.fused": {"size": [64, 128], "stride": 2, "radius": 2}}
    write_changed(ROOT / "recipes" / f"{recipe}.yaml", tmp_path / "params.yaml", sizes)
    monkeypatch.chdir(tmp_path)
    for stage in stages:
        result = run_stage(stage)
        assert result.exit_code == 0, f"{stage}: {result.output} {result.exception!r}"
    metrics = json.loads((tmp_path / "results/eval/metrics.json").read_text())
    assert len(metrics["IoU"]) == num_classes
    assert smp.from_pretrained(str(tmp_path / "models/segmenter")).config["classes"] == num_classes
