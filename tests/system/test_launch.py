"""How many processes a run has is read off the environment, and nonsense is refused."""

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


@pytest.mark.parametrize(
    ("environ", "wanted"),
    [
        ({}, Launch("fabric", 1, 1)),
        ({"CARB_DEVICES": "3"}, Launch("fabric", 3, 1)),
        # what Fabric sets for the processes that it starts
        ({"CARB_DEVICES": "3", "WORLD_SIZE": "3", "LOCAL_RANK": "1"}, Launch("fabric", 3, 1)),
        ({"WORLD_SIZE": "6", "LOCAL_WORLD_SIZE": "3"}, Launch("torchrun", 3, 2)),
        (BATCH | STEP, Launch("srun", 4, 2)),
        (BATCH | {"CARB_DEVICES": "4"}, Launch("fabric", 4, 1)),  # a batch script, no srun
        ({"SLURM_STEP_NUM_TASKS": "1", "CARB_DEVICES": "4"}, Launch("fabric", 4, 1)),
    ],
)
def test_the_launcher_says_how_many_processes_there_are(
    environ: dict[str, str], wanted: Launch
) -> None:
    assert launch_of(environ) == wanted


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", ""])
def test_a_device_setting_that_is_no_number_of_processes_is_refused(value: str) -> None:
    message = rf"CARB_DEVICES must be the number of processes .* 1 or more, got '{value}'"
    with pytest.raises(ValueError, match=message):
        launch_of({"CARB_DEVICES": value})


@pytest.mark.parametrize(
    "environ", [STEP, BATCH | STEP | {"SLURM_STEP_NUM_NODES": "3"}], ids=["per node", "uneven"]
)
def test_srun_must_say_how_many_tasks_each_node_has(environ: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"srun started 8 tasks on \d nodes; set --ntasks-per"):
        launch_of(environ)


def test_more_processes_than_gpus_are_refused() -> None:
    check_gpus(Launch("fabric", 2, 1), 2)
    with pytest.raises(ValueError, match=r"CARB_DEVICES is 3, but .* sees 2 GPUs .* at most 2$"):
        check_gpus(Launch("fabric", 3, 1), 2)
    with pytest.raises(ValueError, match=r"srun --ntasks-per-node is 4, .* by --gres=gpu:N$"):
        check_gpus(Launch("srun", 4, 2), 1)


TORCHRUN = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2"}
TASK = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_NTASKS_PER_NODE": "2"}


@pytest.mark.parametrize(
    ("launcher", "variable"),
    [(TORCHRUN, "RANK"), (TASK, "SLURM_PROCID"), ({STARTED: "1"}, "LOCAL_RANK")],
)
def test_a_stage_that_cannot_share_its_work_leaves_it_to_the_first_process(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    launcher: dict[str, str],
    variable: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in launcher.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv(variable, "1")
    assert run_stage("draw").exit_code == 0
    assert os.listdir(tmp_path) == []
    assert "process 1 of a run by" in caplog.text
    monkeypatch.setenv(variable, "0")
    assert run_stage("draw").exit_code == 0
    assert os.listdir(tmp_path) == ["data"]


@pytest.mark.parametrize(
    "left",
    [
        {"RANK": "1"},
        {"LOCAL_RANK": "3", "NODE_RANK": "1"},
        {"SLURM_PROCID": "1", "SLURM_NTASKS": "8", "SLURM_STEP_NUM_TASKS": "1"},
        {"RANK": "abc"},
        {"RANK": ""},
        {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "nowhere", "MASTER_PORT": "1"},
        {"RANK": "1", "LOCAL_WORLD_SIZE": "2"},
    ],
    ids=str,
)
def test_a_place_that_no_launcher_gave_is_ignored_and_named(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    left: dict[str, str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in left.items():
        monkeypatch.setenv(name, value)
    assert run_stage("draw").exit_code == 0
    assert os.listdir(tmp_path) == ["data"]
    name = next(iter(left))
    told = [line for line in caplog.messages if "ignored, neither torchrun nor srun" in line]
    assert len(told) == 1
    assert f"{name}={left[name]}" in told[0]


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


@pytest.mark.parametrize(
    ("environ", "name"),
    [
        (TORCHRUN, "RANK"),
        (TORCHRUN | {"RANK": "abc"}, "RANK"),
        (TORCHRUN | {"RANK": "-1"}, "RANK"),
        (TASK, "SLURM_PROCID"),
        ({"SLURM_STEP_NUM_TASKS": "many"}, "SLURM_STEP_NUM_TASKS"),
    ],
)
def test_a_launchers_number_that_is_none_is_named(environ: dict[str, str], name: str) -> None:
    with pytest.raises(ValueError, match=rf"^the environment's {name} must be a whole number"):
        process_number(environ)


@pytest.mark.parametrize("sizes", [("0", "0"), ("2", "x"), ("", "2")])
def test_numbers_of_processes_that_are_none_are_named(sizes: tuple[str, str]) -> None:
    environ = dict(zip(("LOCAL_WORLD_SIZE", "WORLD_SIZE"), sizes, strict=True))
    with pytest.raises(ValueError, match=r"WORLD_SIZE must be a whole number of at least 1"):
        launch_of(environ)
    with pytest.raises(ValueError, match=r"torchrun started 3 processes, 2 of them on this node"):
        launch_of({"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "3"})
