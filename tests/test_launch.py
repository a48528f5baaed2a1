"""How many processes a run has is read off the environment, and nonsense is refused."""

import os
from pathlib import Path

import pytest

from pipeline.launch import Launch, another_stopped, check_gpus, launch_of
from tests.tiny_run import run_stage

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
    with pytest.raises(ValueError, match=r"srun started 8 tasks on \d nodes; say by --ntasks-per"):
        launch_of(environ)


def test_more_processes_than_gpus_are_refused() -> None:
    check_gpus(Launch("fabric", 2, 1), 2)
    with pytest.raises(ValueError, match=r"CARB_DEVICES is 3, but .* sees 2 GPUs .* at most 2$"):
        check_gpus(Launch("fabric", 3, 1), 2)
    with pytest.raises(ValueError, match=r"srun --ntasks-per-node is 4, .* by --gres=gpu:N$"):
        check_gpus(Launch("srun", 4, 2), 1)


@pytest.mark.parametrize("variable", ["RANK", "LOCAL_RANK", "SLURM_PROCID"])
def test_a_stage_that_cannot_share_its_work_leaves_it_to_the_first_process(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(variable, "1")
    assert run_stage("draw").exit_code == 0
    assert os.listdir(tmp_path) == []
    monkeypatch.setenv(variable, "0")
    assert run_stage("draw").exit_code == 0
    assert os.listdir(tmp_path) == ["data"]


@pytest.mark.parametrize(
    "message",
    [
        "[../third_party/gloo/gloo/transport/tcp/pair.cc:538] Connection closed by peer [::1]:1",
        "Connection reset by peer",
        "NCCL error: remote process exited or there was a network error",
    ],
)
def test_a_lost_connection_means_that_another_process_stopped(message: str) -> None:
    assert another_stopped(RuntimeError(message))
    assert not another_stopped(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
