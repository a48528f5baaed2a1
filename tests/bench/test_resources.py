"""`bench.resources`: memory by stage with worker processes, and the drawn photos."""

import shlex
import sys
from pathlib import Path

import pytest

from bench.resources import draw_photos, watch_stages
from pipeline.config.params import load_params
from pipeline.datasets import open_dataset
from pipeline.datasets.collect import given_image_labels, used_scenes
from tests.helpers.tiny_run import write_params

MB = 10**6
HOLD = f"import os, time; held = b'1' * {100 * MB}; "


def test_memory_is_summed_over_the_processes_of_a_stage(tmp_path: Path) -> None:
    def stage(code: str, name: str) -> str:
        return shlex.join(
            [sys.executable, "-c", f"{code}; time.sleep(0.5)", "-m", f"stages.{name}"]
        )

    # A forked worker shares the first 100 MB and adds 40.
    forked = f"{HOLD}more = os.fork() or b'1' * {40 * MB}"
    lines = [stage("import time", "prepare"), stage(HOLD + "1", "pseudo"), stage(forked, "train")]
    _, costs = watch_stages(["sh", "-c", "; ".join(lines)], tmp_path)
    assert [*costs] == ["prepare", "pseudo", "train"]
    base = costs["prepare"].memory
    assert costs["pseudo"].memory - base == pytest.approx(100 * MB, abs=10 * MB)
    assert costs["train"].memory - base == pytest.approx(140 * MB, abs=15 * MB)
    assert costs["train"].seconds > 0.3

    with pytest.raises(ValueError, match=r"^false: exit code 1; see its messages$"):
        watch_stages(["false"], tmp_path)


def test_the_drawn_photos_are_a_data_set_with_labels(tmp_path: Path) -> None:
    draw_photos(tmp_path / "photos", 3)
    write_params(tmp_path, {"dataset.name": "folder", "dataset.root": str(tmp_path / "photos")})
    dataset = open_dataset("folder", tmp_path / "photos")
    scenes = used_scenes(dataset)
    labels = given_image_labels(scenes, dataset, load_params(tmp_path / "params.yaml").dataset)
    assert labels is not None
    assert [labels[scene.key].sum() for scene in scenes] == [4, 4, 4]
