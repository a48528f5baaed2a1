"""One, two and three processes give the same store, the same training and the same figures."""

import json
import shutil
from pathlib import Path

import pytest
import torch

from pipeline.config.params import load_params
from tests.helpers.process_runs import (
    copy_of,
    digest,
    ended,
    free_port,
    largest_difference,
    losses,
    prepared,
    start,
    torchrun,
)

PROGRAM = str(Path(__file__).parents[2] / "tests/helpers/process_program.py")
Runs = dict[int, Path]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five training photos and two others, without a store; and a second parameter file."""
    folder = tmp_path_factory.mktemp("processes") / "project"
    prepared(folder, "encoder", {})
    shutil.rmtree(folder / "data/masks.zarr")
    text = (folder / "params.yaml").read_text("utf-8")
    changed = text.replace("encoder_weights: none", "encoder_weights: clip")
    (folder / "clip.yaml").write_text(changed, "utf-8")
    return folder


@pytest.fixture(scope="module")
def runs(project: Path) -> Runs:
    """The folders in which one, two and three processes worked."""
    folders = {}
    for count in (1, 2, 3):
        folders[count] = copy_of(project, f"by-{count}")
        code, output = ended(start(torchrun(count, PROGRAM, "."), folders[count]))
        assert code == 0, output
        (folders[count] / "output").write_text(output, "utf-8")
    return folders


@pytest.mark.parametrize("count", [2, 3])
def test_the_store_has_the_same_bytes(runs: Runs, count: int) -> None:
    assert digest(runs[count] / "data/masks.zarr") == digest(runs[1] / "data/masks.zarr")


@pytest.mark.parametrize("count", [2, 3])
def test_the_maths_is_that_of_one_process(runs: Runs, count: int) -> None:
    one, several = (json.loads((runs[n] / "double.json").read_text()) for n in (1, count))
    assert len(one) == load_params(runs[1] / "params.yaml").train.steps
    assert several == pytest.approx(one, abs=1e-11)
    ours, theirs = (torch.load(runs[n] / "double.pt", weights_only=True) for n in (count, 1))
    assert list(ours) == list(theirs)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=0, atol=1e-11)


@pytest.mark.parametrize("count", [2, 3])
def test_the_loss_is_the_same_at_every_step_but_for_rounding(runs: Runs, count: int) -> None:
    one, several = (json.loads((runs[n] / "single.json").read_text()) for n in (1, count))
    assert several == pytest.approx(one, abs=1e-4)
    assert losses(runs[count]) == pytest.approx(losses(runs[1]), abs=1e-4)


@pytest.mark.parametrize("count", [2, 3])
def test_the_encoder_learns_the_same_from_clip(runs: Runs, count: int) -> None:
    name = "learned.safetensors"
    assert largest_difference(runs[count] / name, runs[1] / name) < 1e-4
    assert largest_difference(runs[1] / name, runs[1] / "models/encoder.safetensors") > 1e-3


def test_one_process_speaks_for_all(runs: Runs) -> None:
    for count in (1, 2, 3):
        output = (runs[count] / "output").read_text("utf-8")
        assert output.count("CLIP: 14 views to compute, 0 in the cache") == 1, output
        assert "Initializing distributed" not in output


def test_the_device_setting_gives_the_same_store(project: Path, runs: Runs) -> None:
    folder = copy_of(project, "by-setting")
    code, output = ended(start(["-m", "stages.pseudo"], folder, CARB_DEVICES="2"))
    assert code == 0, output
    assert digest(folder / "data/masks.zarr") == digest(runs[1] / "data/masks.zarr")


def test_two_nodes_train_as_one_process(runs: Runs) -> None:
    folder, port = copy_of(runs[1], "by-nodes"), free_port()
    stage = ("-m", "stages.train")
    nodes = [start(torchrun(1, *stage, nodes=2, node=node, port=port), folder) for node in range(2)]
    results = [ended(node) for node in nodes]
    assert [code for code, _ in results] == [0, 0], results
    assert losses(folder) == pytest.approx(losses(runs[1])[9::10], abs=1e-4)
