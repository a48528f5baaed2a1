"""The tutorial notebook, run with few photos and steps."""

from pathlib import Path

import pytest

from tests.helpers import ROOT


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
