"""The SLURM script of docs/clusters.md with two tasks, started by a small `srun`."""

import re
from pathlib import Path

from ruamel.yaml import YAML

from tests.helpers import ROOT
from tests.helpers.faults.project import Project
from tests.helpers.process_runs import free_port

PAGE = (ROOT / "docs/clusters.md").read_text("utf-8")
# Skips the options and runs the command as two tasks of one node, both of which must succeed.
SRUN = """
srun() {
    while [[ $1 == --* ]]; do shift; done
    local tasks=() code=0
    for task in 0 1; do
        SLURM_PROCID=$task SLURM_LOCALID=$task SLURM_STEP_NUM_TASKS=2 SLURM_STEP_NUM_NODES=1 \\
            "$@" & tasks+=($!)
    done
    for task in "${tasks[@]}"; do wait $task || code=$?; done
    return $code
}
"""


def test_a_resubmitted_script_runs_only_what_is_missing(tmp_path: Path) -> None:
    [script] = re.findall(r"```sh\n(#!/bin/bash\n.*?)```", PAGE, flags=re.DOTALL)
    changes = {"train.steps": 2, "train.preview_every": 2, "train.workers": 0}
    project = Project.make(tmp_path / "clone", changes)
    project.run_here("draw", "inputs", "prepare", "pseudo", "encoder")
    batch = {
        "SLURM_JOB_ID": "7",
        "SLURM_NTASKS": "2",
        "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NODELIST": "localhost",
        "SLURM_NODEID": "0",
        "SLURM_PROCID": "0",
        "SLURM_CPUS_PER_TASK": "1",
        "MASTER_PORT": str(free_port()),
    }
    beginning, command, end = script.rpartition("dvc repro ")
    last = (
        f"{command} --dry eval eval_pseudo {end}"  # evaluation by one process is tested elsewhere
    )
    said = project.finish("bash", "-c", SRUN + beginning + last, **batch)
    assert "Traceback" not in said
    assert "train 2/2 done" in said
    assert "2 processes" in said
    again = re.findall(r"Running stage '(\w+)'", said)
    assert again == ["inputs", "inputs", "eval", "eval_pseudo"]
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    for stage in ("pseudo", "encoder", "relabel", "train"):
        assert stages[stage]["cmd"] == f"python -m stages.{stage}"  # as in the script
