"""The four steps for your own photos, as the README describes them."""

import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.settings import write_changed
from demo.own_photos import app
from tests.end_to_end.test_recipes import SIZES
from tests.helpers import ROOT
from tests.helpers.tiny_run import run_stage, write_random_clip


def test_four_steps_lead_from_photos_to_a_segmenter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    drawn = CliRunner().invoke(app, ["photos", "--count", "6", "--truth", "corrected.csv"])
    assert drawn.exit_code == 0, drawn.output
    names = "road sidewalk building wall fence pole vegetation terrain sky person rider car truck"
    listed = [*names.split(), "bus", "bicycle", "traffic light", "traffic sign"]
    Path("photos/classes.txt").write_text("\n".join(listed))
    write_random_clip(tmp_path)
    recipe = ROOT / "recipes/folder.yaml"
    write_changed(recipe, Path("params.yaml"), SIZES | {"clip.templates": "plain"})
    result = run_stage("prepare", "propose-labels")
    assert result.exit_code == 0, f"{result.output} {result.exception!r}"
    assert len(Path("photos/labels.csv").read_text("utf-8-sig").splitlines()) == 7
    shutil.copy("corrected.csv", "photos/labels.csv")
    for stage in ("inputs", "prepare", "pseudo", "encoder", "train"):
        result = run_stage(stage)
        assert result.exit_code == 0, f"{stage}: {result.output} {result.exception!r}"
    keys = Path("data/image_labels.csv").read_text("utf-8").splitlines()[1:]
    assert len(keys) == 6
    assert any(line.startswith("train/Fahrt nach M\u00fcnchen/IMG 0000,") for line in keys)
    assert Path("models/segmenter").is_dir()
