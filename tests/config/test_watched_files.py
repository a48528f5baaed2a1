"""Editing a file that params.yaml names, or one of the data set, makes its stages run again."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from dvc.repo import Repo
from PIL import Image
from typer.testing import CliRunner

from bench.settings import write_changed
from pipeline.config.params import Params, load_params
from pipeline.config.watched_files import watch, watch_all
from stages.inputs import app
from tests.helpers import ROOT
from tests.helpers.faults.project import Project
from tests.helpers.tiny_run import TINY

NAMED: dict[str, Any] = {
    "dataset.name": "folder",
    "dataset.root": "scenes",
    "dataset.image_labels": "labels.csv",
    "clip.model": "local-dir:clip",
    "segmenter.encoder_weights": "first.safetensors",
    "eval.photos": "half.txt",
}
OUTS = (
    *("data/demo", "data/masks.zarr", "data/relabelled.zarr", "models/segmenter"),
    *(f"results/{name}" for name in ("prepare", "pseudo", "train", "eval", "eval_pseudo")),
)
FILES = (
    *("data/scenes.json", "data/image_labels.csv", "models/encoder.safetensors"),
    *("results/segmenter.json", "results/pseudo_masks.json", "results/report.html"),
)


def image(path: Path, value: int = 0) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (2, 2), (value, 0, 0)).save(path)


def write(path: Path, text: str = "1") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def stages_to_run(project: Project) -> set[str]:
    """What `dvc repro` would run because of dependencies, except for `inputs`."""
    with contextlib.chdir(project.folder), Repo() as repo:
        status = repo.status()
    changed = {
        stage
        for stage, found in status.items()
        if any(isinstance(item, dict) and "changed deps" in item for item in found)
    }
    assert "always changed" in status["inputs"]
    return changed


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """Named files, images behind a link, and outputs that look like those of a finished run."""
    project = Project.make(tmp_path_factory.mktemp("watched") / "clone", NAMED)
    folder = project.folder
    for name in ("labels.csv", "half.txt", "first.safetensors"):
        write(folder / name)
    write(folder / "scenes/classes.txt", "road\ncar\n")
    image(folder / "scenes/train/own.png")
    image(folder / "../disk/val/far.png")
    (folder / "scenes/val").symlink_to("../../disk/val")
    for name in OUTS:
        write(folder / name / "file")
    for name in FILES:
        write(folder / name)
    with contextlib.chdir(folder), Repo() as repo:
        assert CliRunner().invoke(app, []).exit_code == 0
        repo.commit(force=True)
    assert stages_to_run(project) == set()
    yield project
    project.close()


def test_editing_a_named_file_reruns_the_stages_that_read_it(project: Project) -> None:
    named = {
        "labels.csv": {"prepare"},
        "clip/open_clip_model.safetensors": {"pseudo"},
        "half.txt": {"eval", "eval_pseudo"},
    }
    before = {name: (project.folder / name).read_bytes() for name in named}
    expected: set[str] = set()
    for name, stages in named.items():
        (project.folder / name).write_bytes(before[name] + b" ")
        expected |= stages
        assert stages_to_run(project) == expected  # `inputs` need not run
    for name, content in before.items():
        (project.folder / name).write_bytes(content)


def test_editing_the_data_set_reruns_the_stages_that_read_it(project: Project) -> None:
    scenes, disk = project.folder / "scenes", project.folder / "../disk/val"

    def seen() -> set[str]:
        with contextlib.chdir(project.folder):
            assert CliRunner().invoke(app, []).exit_code == 0
        return stages_to_run(project)

    readers = {"prepare", "eval", "eval_pseudo"}
    image(disk / "far.png", 2)  # behind a link
    assert seen() == readers
    image(disk / "far.png")
    write(scenes / "leftover.zip", "not read")
    write(disk / "notes.txt")
    (scenes / "val").unlink()
    shutil.copytree(disk, scenes / "val")  # the same content at another place
    assert seen() == set()
    write(scenes / "classes.txt", "road\nbus\n")
    assert seen() == readers
    write(scenes / "classes.txt", "road\ncar\n")
    shutil.rmtree(scenes / "val")
    assert seen() == readers


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The named files, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for name in ("labels.csv", "half.txt", "first.safetensors", "scenes/train/own.png"):
        write(Path(name))
    for name in ("open_clip_config.json", "open_clip_model.safetensors", "notes.md"):
        write(Path("clip", name))
    return tmp_path


def asked(**changes: Any) -> Params:
    write_changed(ROOT / "params.yaml", Path("params.yaml"), TINY | NAMED | changes)
    return load_params(Path("params.yaml"))


def links(stage: str) -> dict[str, str]:
    folder = Path("data/inputs") / stage
    return {path.name: os.path.realpath(path) for path in folder.iterdir() if path.is_symlink()}


def test_each_stage_has_links_to_what_it_reads_and_loses_them_with_the_parameter(
    here: Path,
) -> None:
    watch_all(asked(), manifest=None)
    clip = {
        name: str(here / "clip" / name)
        for name in ("open_clip_config.json", "open_clip_model.safetensors")
    }
    assert links("prepare") == {"labels.csv": str(here / "labels.csv")}
    assert links("pseudo") == clip
    assert links("encoder") == {"first.safetensors": str(here / "first.safetensors")}
    assert links("eval") == links("eval_pseudo") == {"half.txt": str(here / "half.txt")}
    assert [path.name for path in Path("data/inputs/train").iterdir()] == ["nothing.txt"]
    segmenter = {"carb.json", "config.json", "model.safetensors"}
    for name in segmenter:
        write(Path("old", name))
    for weights in ("old", "old/model.safetensors"):
        watch_all(asked(**{"segmenter.weights": weights}), manifest=None)
        assert {path.name for path in Path("data/inputs/train").iterdir()} == segmenter
    changes: dict[str, Any] = {"eval.photos": None, "dataset.image_labels": None}
    watch_all(asked(**changes, **{"segmenter.encoder_weights": "clip"}), manifest=None)
    assert links("prepare") == links("eval") == {}
    assert links("encoder") == clip
    changes = {"clip.model": "ViT-B-16-quickgelu", "clip.pretrained": "first.safetensors"}
    watch_all(asked(**changes), manifest=None)
    assert list(links("pseudo")) == ["first.safetensors"]
    watch_all(asked(**changes | {"clip.pretrained": "openai"}), manifest=None)
    assert links("pseudo") == {}


def test_a_moved_clone_keeps_its_links(here: Path) -> None:
    far = here / "../far.txt"
    write(far)
    watch_all(asked(**{"eval.photos": str(far)}), manifest=None)
    shutil.move(here, here.with_name("moved"))
    moved = here.with_name("moved") / "data/inputs"
    assert (moved / "prepare/labels.csv").read_text() == "1"
    assert (moved / "eval/far.txt").read_text() == "1"
    shutil.move(here.with_name("moved"), here)


def test_a_stage_run_by_hand_watches_its_own_files_and_leaves_the_others(here: Path) -> None:
    watch_all(asked(), manifest=None)
    write(Path("quarter.txt"))
    params = asked(**{"eval.photos": "quarter.txt"})
    watch("eval", params, Path("params.yaml"))
    assert (list(links("eval")), list(links("eval_pseudo"))) == (["quarter.txt"], ["half.txt"])
    watch("eval_pseudo", params, Path("other.yaml"))  # not what DVC reads
    assert list(links("eval_pseudo")) == ["half.txt"]


def test_a_data_set_that_cannot_be_opened_is_left_to_prepare(here: Path) -> None:
    asked()
    manifest = Path("data/inputs/prepare/dataset.jsonl")
    write(Path("scenes/classes.txt"), "road\ncar\n")
    image(Path("scenes/train/own.png"))
    assert CliRunner().invoke(app, []).exit_code == 0
    assert len(manifest.read_text().splitlines()) == 2
    shutil.rmtree("scenes")
    assert CliRunner().invoke(app, []).exit_code == 0
    assert not manifest.exists()
    assert links("prepare")


def test_a_stage_run_by_hand_needs_no_place_for_them(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(Path("data"), "a file, so that nothing can be written below")
    watch("eval", asked(), Path("params.yaml"))
    assert "data/inputs: not writable (Not a directory)" in caplog.text


def test_a_missing_file_is_named_before_any_work(here: Path) -> None:
    for parameter, value, reason in (
        ("dataset.image_labels", "none.csv", "no such file"),
        ("eval.photos", "scenes", "is not a file"),
    ):
        asked(**{parameter: value})
        result = CliRunner().invoke(app, [])
        problem = f"params.yaml: {parameter}: {value}: {reason}; correct the path"
        assert (result.exit_code, result.output) == (2, f"error: {problem}\n")


def test_missing_weights_are_named_and_leave_their_stage_without_a_folder(
    here: Path, caplog: pytest.LogCaptureFixture
) -> None:
    watch_all(asked(), manifest=None)
    changes = {"clip.model": "local-dir:none", "segmenter.encoder_weights": "none.safetensors"}
    watch_all(asked(**changes), manifest=None)
    assert "no such file" in caplog.text
    for stage in ("pseudo", "encoder"):
        assert not Path("data/inputs", stage).exists()
        assert f"stage '{stage}' cannot run without it" in caplog.text
