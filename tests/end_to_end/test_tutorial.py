"""The tutorial, page and notebook: its commands lead from a folder of photos to predictions."""

import re
from pathlib import Path

import pytest

from bench.settings import write_changed
from pipeline.datasets.folder import read_classes
from pipeline.datasets.image_label_files import read_label_file
from tests.end_to_end.test_recipes import SIZES
from tests.helpers import ROOT
from tests.helpers.faults.project import Project

PAGE = (ROOT / "docs/tutorial.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    """The code blocks of the page in a language, in order."""
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_commands_of_the_tutorial_lead_from_photos_to_predictions(tmp_path: Path) -> None:
    project = Project.make(tmp_path / "clone", git=True)
    here = project.folder
    (here / "recipes").symlink_to(ROOT / "recipes")
    identity = "-c user.name=a -c user.email=a"
    project.finish("bash", "-ec", f"git add params.yaml; git {identity} commit -qm demo")
    draw, init, *steps = (line for block in blocks("sh") for line in block.splitlines())
    for command in (draw.replace("--count 24", "--count 4"), init):
        project.finish("bash", "-ec", command, PYTHONPATH=str(here))
    # A random CLIP in place of the real one, which is a download, and small sizes.
    changes = {name: value for name, value in SIZES.items() if name != "dataset.root"}
    write_changed(here / "params.yaml", here / "params.yaml", changes | {"clip.templates": "plain"})
    for command in steps:
        project.finish("bash", "-ec", command, PYTHONPATH=str(here))
    keys = (here / "data/image_labels.csv").read_text("utf-8").splitlines()[1:]
    assert len(keys) == 4
    assert any(line.startswith("train/Fahrt nach M\u00fcnchen/IMG 0000,") for line in keys)
    assert (here / "models/segmenter").is_dir()
    assert len(list((here / "predictions/overlays").rglob("*.png"))) == 4
    shown = blocks("csv")[0].splitlines()
    assert set(shown) < set((here / "photos/classes.csv").read_text("utf-8").splitlines())
    names = read_classes(here / "photos/classes.csv").names
    assert len(read_label_file(here / "corrected.csv", names)) == 4  # every tag is a class


def test_notebook_runs_and_shows_panels_and_overlays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    monkeypatch.setenv("CARB_TUTORIAL_PHOTOS", "4")
    monkeypatch.setenv("CARB_TUTORIAL_STEPS", "2")
    monkeypatch.setenv("CARB_TUTORIAL_FOLDER", str(tmp_path / "work"))
    notebook = nbformat.read(ROOT / "docs/tutorial.ipynb", as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": ROOT}}).execute()
    shown = [o for cell in notebook.cells for o in cell.get("outputs", []) if "data" in o]
    assert sum("image/png" in output["data"] for output in shown) == 4
    assert (tmp_path / "work/models/segmenter").is_dir()
