"""The demo's CLIP knows drawings only: on photos it is refused without an explicit yes."""

import shutil
from pathlib import Path

import pytest

from pipeline.config.clip import check_knows_photos
from pipeline.config.params import Params
from tests.helpers import ROOT
from tests.helpers.small_results import write_results
from tests.helpers.tiny_run import run_stage, write_params, write_random_clip

CHANGES = {"dataset.name": "folder", "dataset.root": "photos", "clip.model": "local-dir:mine"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a copy of the demo's CLIP, which its settings name for photos."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(ROOT / "demo/clip", "mine")
    write_params(tmp_path, CHANGES)
    return tmp_path


@pytest.mark.parametrize("stage", ["inputs", "prepare propose-labels"])
def test_photos_need_another_clip_or_an_explicit_yes(here: Path, stage: str) -> None:
    result = run_stage(*stage.split())
    assert result.exit_code == 2
    assert "clip.model: local-dir:mine was trained on drawings" in result.output
    assert "set clip.model to ViT-B-16-quickgelu" in result.output
    write_params(here, CHANGES | {"clip.demo_on_photos": True})
    assert "trained on drawings" not in run_stage(*stage.split()).output


def test_the_demo_and_other_clips_are_not_affected(here: Path, params: Params) -> None:
    write_random_clip(here)
    drawings, random = (
        params.clip.model_copy(update={"model": f"local-dir:{name}"}) for name in ("mine", "clip")
    )
    check_knows_photos(drawings, "demo")
    check_knows_photos(random, "folder")
    with pytest.raises(ValueError, match="drawings"):
        check_knows_photos(drawings, "camvid")


def test_the_first_line_of_the_report_says_so(here: Path) -> None:
    write_results(here)
    write_params(here, CHANGES | {"clip.demo_on_photos": True})
    assert run_stage("report").exit_code == 0
    page = Path("results/report.html").read_text("utf-8")
    first = page.partition("<body>")[2].partition("<h1>")[0]
    assert "Not a result on photos: this CLIP was trained on drawings" in first
    write_params(here, CHANGES | {"dataset.name": "demo"})
    assert run_stage("report").exit_code == 0
    assert "trained on drawings" not in Path("results/report.html").read_text("utf-8")
