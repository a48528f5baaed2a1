"""Fault tolerance of `dvc repro`: kill -9, SIGTERM, a second run and damaged files."""

import os
import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.helpers.faults.kills import kill
from tests.helpers.faults.project import PATIENCE_S, Project, Run, wait_for_stage
from tests.helpers.tiny_run import run_stage

# What is damaged, the stage that makes it, a stage that reads it.
DAMAGE = [
    ("data/masks.zarr/local/logits/c/0/0/0/0", "pseudo", "train"),
    ("models/segmenter/model.safetensors", "train", "eval"),
]


def test_a_killed_stopped_and_damaged_run_ends_with_the_outputs_of_an_undisturbed_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = Project.make(tmp_path / "project")
    project.run_here("draw", "inputs", "prepare", "encoder")
    undisturbed = Project(shutil.copytree(project.folder, tmp_path / "undisturbed"))
    undisturbed.run_here("pseudo", "relabel", "train", "eval", "eval_pseudo", "report")
    expected = undisturbed.outputs()
    monkeypatch.chdir(project.folder)
    assert "while" in kill(project, "pseudo", None)
    stop_while_training(project)
    assert kill(project, "eval", None)
    assert "resuming after step " in project.runs[-1].log.read_text()
    project.finish("dvc", "repro")
    assert project.outputs() == expected
    assert project.leftovers() == []
    for file, stage, user in DAMAGE:
        flip_bit(project.folder / file)
        refused = run_stage(user)
        repair = ["dvc", "repro", "--force", "--single-item", stage]
        assert refused.exit_code == 2
        assert " ".join(repair) in refused.output
        project.finish(*repair)
        assert project.outputs() == expected


def stop_while_training(project: Project) -> None:
    """SIGTERM ends a run after its current step; until then no second run may start."""
    run = project.start("dvc", "repro")
    assert wait_for_stage(run, "train")
    wait_for(project.folder / "scratch", "train-*/checkpoint.safetensors")
    os.killpg(run.pid, signal.SIGSTOP)  # it holds its locks and does not end meanwhile
    second = run_stage("train")
    assert second.exit_code == 2
    assert "another run is writing it; wait for it to end, or stop it" in second.output
    repro = project.start("dvc", "repro")
    assert "is busy" in repro.said()
    assert repro.returncode != 0
    os.killpg(run.pid, signal.SIGTERM)
    os.killpg(run.pid, signal.SIGCONT)
    said = wait_until(run, "stopped by")
    assert "stopped by SIGTERM, train " in said
    assert "Traceback" not in said


def flip_bit(file: Path) -> None:
    """Flip a bit as a failing disk does: size and times stay the same."""
    content, times = bytearray(file.read_bytes()), file.stat()
    content[len(content) // 3] ^= 4
    file.write_bytes(content)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


def wait_for(folder: Path, pattern: str) -> None:
    end = time.monotonic() + PATIENCE_S
    while not any(folder.glob(pattern)):
        assert time.monotonic() < end
        time.sleep(0.01)


def wait_until(run: Run, words: str) -> str:
    """Wait until a run has logged some words; DVC itself ends before the stage does."""
    end = time.monotonic() + PATIENCE_S
    while words not in run.log.read_text() and time.monotonic() < end:
        time.sleep(0.1)
    return run.said()
