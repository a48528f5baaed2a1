"""The bench of scale: what it draws is the same each time, and a step says what it took."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from bench.scale import Step, app, lay_out, measure, steps_of, weigh
from bench.scale_steps import STEPS, draw_photos
from pipeline.config.params import load_params
from pipeline.datasets import open_dataset
from pipeline.scenes.index import SceneIndex
from tests.helpers.tiny_store import digests


def test_photos_are_drawn_from_their_numbers_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, parts in {"whole": [(0, 12)], "parts": [(0, 7), (7, 12)]}.items():
        (tmp_path / name).mkdir()
        monkeypatch.chdir(tmp_path / name)
        for start, stop in parts:
            draw_photos(start, stop)
    found = digests(tmp_path / "whole")
    assert found == digests(tmp_path / "parts")
    assert len(found) == len(set(found.values())) == 14  # with classes and labels
    assert len(open_dataset("folder", tmp_path / "whole/photos").scenes("train")) == 12


def test_files_are_weighed_once_each(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name, count in {"one": 3, "inner/two": 5}.items():
        (tmp_path / name).write_bytes(bytes(count))
    assert weigh([tmp_path / "one", tmp_path / "inner"]) == (8, 2)


def test_a_step_runs_in_its_own_process_and_tells_what_it_took(tmp_path: Path) -> None:
    lay_out(tmp_path / "run")
    load_params(tmp_path / "run/params.yaml")
    steps = {step.name: step for step in steps_of(20)}
    for name in ("draw photos", "prepare", "read index"):
        cost = measure(steps[name], tmp_path / "run", 20)
        assert 0 < cost.seconds < 100
        assert 10 < cost.peak_mib < 4000
    assert (cost.photos, cost.step, cost.files) == (20, "read index", 1)
    assert len(SceneIndex.read(tmp_path / "run/data/scenes.json").photos) == 20
    with pytest.raises(ValueError, match=r"log\.txt: 'x' failed; see the last lines"):
        measure(Step("x", ["bench.scale_steps", "no step"]), tmp_path / "run", 20)


def test_every_single_step_is_measured() -> None:
    lines = [step.line for step in steps_of(20)]
    assert set(STEPS) == {line[1] for line in lines if line[0] == "bench.scale_steps"} - {"draw"}
    assert len(np.unique([step.name for step in steps_of(20)])) == len(lines)


def test_a_step_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["--out", str(tmp_path), "--only", "read inde"])
    assert result.exit_code == 2
    assert "--only read inde: no such step" in result.output
