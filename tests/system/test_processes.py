"""Several processes: the same store and training as one process; one dies and all stop.

BatchNorm and dropout differ with the number of processes on CPUs, so networks with them only run.
"""

import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from pipeline.config.params import load_params
from pipeline.system.devices import LOST
from pipeline.training import fit as training
from tests.helpers import process_program
from tests.helpers.process_runs import (
    children,
    copy_of,
    ended,
    free_port,
    prepared,
    start,
    torchrun,
)
from tests.helpers.tiny_run import run_stage
from tests.helpers.tiny_store import digests

TRAIN = ("-m", "stages.train")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five training photos and two others, ready for training; and a second parameter file."""
    folder = tmp_path_factory.mktemp("processes") / "project"
    prepared(folder, "encoder", {"train.steps": 20, "train.checkpoint_every": 2})
    text = (folder / "params.yaml").read_text("utf-8")
    changed = text.replace("encoder_weights: none", "encoder_weights: clip")
    (folder / "clip.yaml").write_text(changed, "utf-8")
    return folder


def without_store(project: Path, name: str) -> Path:
    folder = copy_of(project, name)
    shutil.rmtree(folder / "data/masks.zarr")
    return folder


def test_two_nodes_give_the_store_and_the_training_of_one_process(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two, port = without_store(project, "one"), without_store(project, "two"), free_port()
    program = (str(process_program.__file__), ".")
    nodes = [start(torchrun(1, *program, nodes=2, node=node, port=port), two) for node in range(2)]
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.setattr(training, "LOG_EVERY", 1)
    monkeypatch.chdir(one)
    process_program.main(one)
    torch.set_num_threads(threads)
    (code, output), (other_code, other) = [ended(node) for node in nodes]
    assert (code, other_code) == (0, 0), output + other

    assert digests(two / "data/masks.zarr") == digests(one / "data/masks.zarr")
    for name, tolerance in (("double", 1e-11), ("single", 1e-4)):
        losses, wanted = (json.loads((run / f"{name}.json").read_text()) for run in (two, one))
        assert len(wanted) == load_params(one / "params.yaml").train.steps
        assert losses == pytest.approx(wanted, abs=tolerance)
        weights, wanted = (torch.load(run / f"{name}.pt", weights_only=True) for run in (two, one))
        assert list(weights) == list(wanted)
        for key, value in weights.items():
            torch.testing.assert_close(value, wanted[key], rtol=0, atol=tolerance)
    # The first process reports for all, and what differs from one process.
    assert output.count("CLIP: 14 views to compute, 0 in the cache") == 1, output
    assert output.count("2 processes on CPUs: batch statistics and dropout") == 4  # trainings
    assert "views to compute" not in other
    assert (two / "learned.safetensors").is_file()


def test_a_photo_that_one_process_cannot_read_stops_all_with_one_sentence(project: Path) -> None:
    folder = copy_of(project, "damaged")
    photo = folder / "data/demo/train/images/00000.png"
    photo.write_bytes(photo.read_bytes()[:300])
    code, output = ended(start(torchrun(2, *TRAIN), folder))
    assert code != 0
    assert output.count("00000.png: not readable as an image") == 1, output
    assert "stages/train.py" not in output, "a traceback of ours"
    assert not (folder / "models/segmenter").exists()


def checkpoints(folder: Path) -> list[int]:
    """Times of the checkpoints of an unfinished training."""
    found = folder.glob("scratch/train-*/checkpoint.safetensors")
    return [path.stat().st_mtime_ns for path in found]


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
def test_a_killed_process_stops_all_and_another_number_of_them_resumes(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = copy_of(project, "killed")
    for victim in ("second", "first"):
        before = checkpoints(folder)
        run = start([*TRAIN], folder, CARB_DEVICES="2")
        while checkpoints(folder) == before:
            assert run.poll() is None, run.communicate()
            time.sleep(0.01)
        os.kill(run.pid if victim == "first" else children(run.pid)[0], signal.SIGKILL)
        code, output = ended(run)  # when both have closed their output
        assert code != 0
        assert LOST in output or "Child process with PID" in output, output
        assert "Traceback" not in output, output
        assert ("resuming after step" in output) == bool(before)
        assert not (folder / "models/segmenter").exists()
    monkeypatch.chdir(folder)
    result = run_stage("train")
    assert result.exit_code == 0, result.output
    assert (folder / "models/segmenter/model.safetensors").is_file()
