"""One process of a run fails or is killed: all stop, one line says why, and the run resumes."""

import os
import signal
import sys
from pathlib import Path

import pytest

from pipeline.system.devices import LOST
from tests.helpers.process_runs import children, copy_of, ended, prepared, start, torchrun

TRAIN = ("-m", "stages.train")


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All is ready for training."""
    folder = tmp_path_factory.mktemp("death") / "project"
    return prepared(folder, "encoder", {"train.checkpoint_every": 2})


def test_a_photo_that_one_process_cannot_read_stops_all_with_one_sentence(project: Path) -> None:
    folder = copy_of(project, "damaged")
    photo = folder / "data/demo/train/images/00000.png"
    photo.write_bytes(photo.read_bytes()[:300])
    code, output = ended(start(torchrun(2, *TRAIN), folder))
    assert code != 0
    assert output.count("00000.png: not readable as an image") == 1, output
    assert "stages/train.py" not in output, "a traceback of ours"
    assert not (folder / "models/segmenter").exists()


@pytest.mark.skipif(sys.platform != "linux", reason="finds processes in /proc")
@pytest.mark.parametrize(("victim", "then"), [("first", 3), ("second", 1)])
def test_a_killed_process_stops_all_and_another_number_of_them_resumes(
    project: Path, victim: str, then: int
) -> None:
    folder = copy_of(project, victim)
    run = start([*TRAIN], folder, CARB_DEVICES="2")
    while not list(folder.glob("scratch/train-*/checkpoint.safetensors")):
        assert run.poll() is None, run.communicate()
    os.kill(run.pid if victim == "first" else children(run.pid)[0], signal.SIGKILL)
    code, output = ended(run)  # when both have closed their output
    assert code != 0
    assert LOST in output or "Child process with PID" in output, output
    assert "Traceback" not in output, output
    assert not (folder / "models/segmenter").exists()
    code, output = ended(start([*TRAIN], folder, CARB_DEVICES=str(then)))
    assert (code, "resuming after step" in output) == (0, True), output
    assert (folder / "models/segmenter/model.safetensors").is_file()
