"""The number of processes of a run is read from the environment."""

import os
from pathlib import Path

import pytest

from pipeline.system.devices import (
    STARTED,
    Launch,
    check_gpus,
    drop_leftovers,
    launch_of,
    process_number,
)
from tests.helpers.tiny_run import run_stage

BATCH = {"SLURM_NTASKS": "8", "SLURM_NNODES": "2", "SLURM_NTASKS_PER_NODE": "4"}
STEP = {"SLURM_STEP_NUM_TASKS": "8", "SLURM_STEP_NUM_NODES": "2"}
TORCHRUN = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
TASK = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, Launch("fabric", 1, 1)),
        # what Fabric sets for the processes that it starts
        ({"CARB_DEVICES": "3", "WORLD_SIZE": "3", "LOCAL_RANK": "1"}, Launch("fabric", 3, 1)),
        ({"WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3"}, Launch("torchrun", 3, 2)),
        (BATCH | STEP, Launch("srun", 4, 2)),
        (BATCH | {"CARB_DEVICES": "4"}, Launch("fabric", 4, 1)),  # a batch script, no srun
        ({"SLURM_STEP_NUM_TASKS": "1", "CARB_DEVICES": "4"}, Launch("fabric", 4, 1)),
    ],
)
def test_the_launcher_sets_the_number_of_processes(environ: dict[str, str], wanted: Launch) -> None:
    assert launch_of(environ) == wanted


@pytest.mark.parametrize(
    ("environ", "message"),
    [
        ({"CARB_DEVICES": "0"}, r"variable CARB_DEVICES must be an integer of at least 1, got '0'"),
        ({"CARB_DEVICES": "1.5"}, r"CARB_DEVICES must be .* got '1\.5'"),
        (STEP, r"srun started 8 tasks on 2 nodes; set --ntasks-per-node"),
        (BATCH | STEP | {"SLURM_STEP_NUM_NODES": "3"}, r"srun started 8 tasks on 3 nodes"),
        ({"SLURM_STEP_NUM_TASKS": "many"}, r"SLURM_STEP_NUM_TASKS must be an integer"),
        (TORCHRUN | {"WORLD_SIZE": "3"}, r"torchrun started 3 processes, 2 of them on this node"),
        (TORCHRUN | {"LOCAL_WORLD_SIZE": "0"}, r"LOCAL_WORLD_SIZE must be .* of at least 1"),
    ],
)
def test_an_impossible_number_of_processes_is_refused(
    environ: dict[str, str], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        launch_of(environ)


def test_a_rank_that_is_not_a_number_is_refused() -> None:
    for environ, name in ((TORCHRUN | {"RANK": "-1"}, "RANK"), (TASK, "SLURM_PROCID")):
        with pytest.raises(ValueError, match=rf"variable {name} must be an integer"):
            process_number(environ)


def test_more_processes_than_gpus_are_refused() -> None:
    check_gpus(Launch("fabric", 2, 1), 2)
    with pytest.raises(ValueError, match=r"CARB_DEVICES is 3, but .* sees 2 GPUs .* at most 2$"):
        check_gpus(Launch("fabric", 3, 1), 2)
    with pytest.raises(ValueError, match=r"srun --ntasks-per-node is 4, .* by --gres=gpu:N$"):
        check_gpus(Launch("srun", 4, 2), 1)


@pytest.mark.parametrize(
    ("launcher", "variable"),
    [(TORCHRUN, "RANK"), (TASK, "SLURM_PROCID"), ({STARTED: "1"}, "LOCAL_RANK")],
)
def test_a_stage_that_cannot_be_distributed_runs_on_rank_zero(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    launcher: dict[str, str],
    variable: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    for rank, written in (("1", []), ("0", ["data"])):
        monkeypatch.setenv(variable, rank)
        assert run_stage("draw").exit_code == 0
        assert os.listdir(tmp_path) == written
    assert "process 1 of a run by" in caplog.text


@pytest.mark.parametrize(
    "left",
    [
        {"LOCAL_RANK": "3", "NODE_RANK": "1"},
        {"SLURM_PROCID": "1", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1"},
        {"RANK": "abc", "WORLD_SIZE": "2", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1"},
    ],
    ids=str,
)
def test_a_rank_that_no_launcher_set_is_ignored_with_a_warning(
    caplog: pytest.LogCaptureFixture, left: dict[str, str]
) -> None:
    environ = dict(left)
    assert process_number(environ) == 0
    drop_leftovers(environ)
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE"} & environ.keys()
    name = next(iter(left))
    (line,) = [line for line in caplog.messages if "ignored, neither torchrun nor srun" in line]
    assert f"{name}={left[name]}" in line


def test_leftovers_do_not_reach_fabric_and_a_launcher_keeps_its_own() -> None:
    places = {"RANK": "1", "LOCAL_RANK": "1", "SLURM_PROCID": "1", "MASTER_ADDR": "a", "X": "1"}
    for launcher, kept in (
        ({}, {"X"}),
        (TORCHRUN, places.keys()),
        (TASK, {"SLURM_PROCID", "MASTER_ADDR", "X"}),
        ({STARTED: "1"}, places.keys()),
    ):
        environ = launcher | places
        drop_leftovers(environ)
        assert environ.keys() == launcher.keys() | kept
