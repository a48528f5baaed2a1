"""Killed, stopped, damaged, started twice: the pipeline recovers and leaves the same bytes."""

import os
import random
import signal
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.faults.kills import Reference, kill_and_compare, undisturbed
from tests.helpers.faults.project import PATIENCE_S, Project, Run, wait_for_stage

PYTHON = sys.executable


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Reference:
    return undisturbed(tmp_path_factory.mktemp("reference") / "project")


def test_after_kills_the_outputs_are_those_of_an_undisturbed_run(
    reference: Reference, tmp_path: Path
) -> None:
    killed: list[str] = []
    kill_and_compare(tmp_path, reference, kills=2, random=random.Random(3), tell=killed.append)
    assert len(killed) == 2


def flip(file: Path) -> None:
    """Flip a bit as a failing disk does: nothing else about the file changes."""
    content, times = bytearray(file.read_bytes()), file.stat()
    content[len(content) // 3] ^= 4
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_stopped_run_goes_on_and_no_second_one_gets_into_its_way(
    reference: Reference, tmp_path: Path
) -> None:
    project = Project.make(tmp_path / "project")
    run = project.start("dvc", "repro")
    assert wait_for_stage(run, "train")
    wait_for(project.folder / "scratch", "train-*/checkpoint.safetensors")
    os.killpg(run.pid, signal.SIGSTOP)  # it holds its locks and does not end meanwhile
    said = refused(project, PYTHON, "-m", "stages.train")
    assert "another run is writing it; wait for it to end, or stop it" in said
    assert "is busy" in refused(project, "dvc", "repro")
    os.killpg(run.pid, signal.SIGTERM)
    os.killpg(run.pid, signal.SIGCONT)
    said = wait_until(run, "stopped by")
    assert "stopped by SIGTERM, train " in said
    assert "Traceback" not in said
    assert "resuming after step " in project.finish("dvc", "repro")
    assert project.outputs() == reference.outputs
    assert project.leftovers() == []
    for file, stage, user in DAMAGE:
        flip(project.folder / file)
        said = refused(project, PYTHON, "-m", f"stages.{user}", *ARGUMENTS.get(user, []))
        repair = ["dvc", "repro", "--force", "--single-item", stage]
        assert f"{' '.join(repair)}" in said
        assert "Traceback" not in said
        project.finish(*repair)
        assert project.outputs() == reference.outputs


# What is damaged, the stage that makes it, a stage that reads it.
DAMAGE = [
    ("data/masks.zarr/local/logits/c/0/0/0/0", "pseudo", "train"),
    ("models/segmenter/model.safetensors", "train", "eval"),
]
ARGUMENTS = {"eval": ["--out", "results/eval"]}


def wait_for(folder: Path, pattern: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not any(folder.glob(pattern)):
        assert time.monotonic() < end
        time.sleep(0.01)


def wait_until(run: Run, words: str) -> str:
    """Wait until a run has said something; DVC itself ends before the stage does."""
    end = time.monotonic() + PATIENCE_S
    while words not in run.log.read_text() and time.monotonic() < end:
        time.sleep(0.1)
    return run.said()


def refused(project: Project, *command: str) -> str:
    """Run a command that must be refused; what it said."""
    run = project.start(*command)
    said = run.said()
    assert run.returncode not in (0, None), said
    return said
