"""The SLURM script of docs/clusters.md, run with two tasks a step by a small srun."""

import re
from pathlib import Path

from ruamel.yaml import YAML

from tests.helpers import ROOT
from tests.helpers.faults.project import Project
from tests.helpers.process_runs import free_port

PAGE = (ROOT / "docs/clusters.md").read_text("utf-8")
# Options are skipped; the command runs as two tasks of one node, which must end well.
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


def test_the_script_runs_all_stages(tmp_path: Path) -> None:
    [script] = re.findall(r"```sh\n(#!/bin/bash\n.*?)```", PAGE, flags=re.DOTALL)
    changes = {"train.steps": 2, "train.preview_every": 2, "train.workers": 0}
    project = Project.make(tmp_path / "clone", changes)
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
    said = project.finish("bash", "-c", SRUN + script, **batch)
    assert "Traceback" not in said
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    lock = YAML(typ="safe").load(project.folder / "dvc.lock")["stages"]
    assert lock.keys() == stages.keys()
    assert (project.folder / "results/report.html").is_file()
    for stage in ("pseudo", "encoder", "train"):
        assert stages[stage]["cmd"] == f"python -m stages.{stage}"  # as the script calls it
