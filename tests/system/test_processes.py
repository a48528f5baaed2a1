"""One, two and three processes: the same store, and the same training but for what docs name.

BatchNorm and dropout differ with the number of processes on CPUs, so that networks with them are
only run.
"""

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
    prepared(folder, "encoder", {"train.steps": 20})
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
@pytest.mark.parametrize(("name", "tolerance"), [("double", 1e-11), ("single", 1e-4)])
def test_loss_and_weights_without_batch_statistics_are_those_of_one_process(
    runs: Runs, count: int, name: str, tolerance: float
) -> None:
    one, several = (json.loads((runs[n] / f"{name}.json").read_text()) for n in (1, count))
    assert len(one) == load_params(runs[1] / "params.yaml").train.steps
    assert several == pytest.approx(one, abs=tolerance)
    ours, theirs = (torch.load(runs[n] / f"{name}.pt", weights_only=True) for n in (count, 1))
    assert list(ours) == list(theirs)
    for key, value in ours.items():
        torch.testing.assert_close(value, theirs[key], rtol=0, atol=tolerance)


def test_the_first_process_reports_for_all_and_names_what_differs(runs: Runs) -> None:
    for count in (1, 2, 3):
        output = (runs[count] / "output").read_text("utf-8")
        assert output.count("CLIP: 14 views to make; 0 stand in the cache") == 1, output
        assert "Initializing distributed" not in output
        differs = f"{count} processes on CPUs: batch statistics and dropout"
        assert output.count(differs) == (0 if count == 1 else 4)  # one per training
        assert (runs[count] / "learned.safetensors").is_file()


def test_the_device_setting_gives_the_same_store(project: Path, runs: Runs) -> None:
    folder = copy_of(project, "by-setting")
    code, output = ended(start(["-m", "stages.pseudo"], folder, CARB_DEVICES="2"))
    assert code == 0, output
    assert digest(folder / "data/masks.zarr") == digest(runs[1] / "data/masks.zarr")


def test_two_nodes_train_as_two_processes_on_one(runs: Runs) -> None:
    folder, port = copy_of(runs[1], "by-nodes"), free_port()
    stage = ("-m", "stages.train")
    nodes = [start(torchrun(1, *stage, nodes=2, node=node, port=port), folder) for node in range(2)]
    results = [ended(node) for node in nodes]
    assert [code for code, _ in results] == [0, 0], results
    assert losses(folder) == pytest.approx(losses(runs[2])[9::10], abs=1e-4)
