"""The scripts of docs/clusters.md in a fresh clone (of the last commit), on a small Cityscapes
tree, with shell functions as `sbatch` and `srun`."""

import re
import subprocess
from pathlib import Path

from ruamel.yaml import YAML

from bench.settings import write_changed
from tests.end_to_end.test_recipes import SIZES, cityscapes
from tests.helpers import ROOT
from tests.helpers.faults.project import Project
from tests.helpers.tiny_run import write_random_clip

PAGE = (ROOT / "docs/clusters.md").read_text("utf-8")
# `sbatch` runs a script at once, an array as two elements side by side. `srun` runs training as two
# processes of torchrun and other stages as one (tests/system has two, also by SLURM's variables).
SLURM = """
sbatch() {
    local script=${!#} element elements=() code=0
    if grep -q -- --array= "$script"; then
        for element in 1 2; do
            SLURM_ARRAY_TASK_ID=$element SLURM_ARRAY_TASK_COUNT=2 \\
                bash "$script" >&2 & elements+=($!)
        done
        for element in "${elements[@]}"; do wait $element || code=$?; done
    else
        bash "$script" >&2 || code=$?
    fi
    echo 7
    return $code
}
srun() {
    while [[ $1 != python ]]; do shift; done
    if [[ $* == *train ]]; then
        torchrun --standalone --nproc_per_node 2 "${@:2}"
    else
        "$@"
    fi
}
export -f srun
set -e
"""
SMALL = SIZES | {"dataset.root": "/path/to/cityscapes", "clip.templates": "plain"}
SMALL |= {"segmenter.encoder": "resnet18", "segmenter.classifier": "learned", "train.batch_size": 4}


def test_the_scripts_run_clip_in_parts_then_train_and_again_only_what_is_missing(
    tmp_path: Path,
) -> None:
    login, clip, train = re.findall(r"```sh\n((?:cp |#!/bin/bash\n).*?)```", PAGE, flags=re.DOTALL)
    cityscapes(tmp_path / "unpacked")
    project = Project(tmp_path / "clone")
    subprocess.run(["git", "clone", "--quiet", ROOT, project.folder], check=True)
    recipe = project.folder / "recipes/cityscapes.yaml"
    write_changed(recipe, recipe, SMALL)
    write_random_clip(project.folder)  # in place of a download
    beginning, command, end = train.rpartition("dvc repro ")
    dry = f"{command} --dry eval eval_pseudo {end}"  # evaluation is tested elsewhere
    (project.folder / "clip.sbatch").write_text(clip)
    (project.folder / "train.sbatch").write_text(beginning + dry)
    job = {
        "DATASETS": str(tmp_path / "unpacked"),
        "SHARED": str(tmp_path),
        "SLURM_CPUS_PER_TASK": "1",
        "PYTHONPATH": str(project.folder),
    }
    said = project.finish("bash", "-c", SLURM + login, **job)
    assert "Traceback" not in said
    assert "all weights load from this machine" in said
    assert said.count("CLIP: 5 views to compute, 0 in the cache") == 2  # one shard per level
    assert "CLIP: 0 views to compute, 10 in the cache" in said  # the job of training
    assert "train 2/2 done" in said
    assert "2 processes" in said
    assert (tmp_path / "dvc-cache/files").is_dir()
    again = project.finish("bash", "-c", SLURM + "sbatch train.sbatch", **job)
    ran = re.findall(r"Running stage '(\w+)'", again)
    assert ran == ["inputs", "inputs", "eval", "eval_pseudo"]
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    for stage in ("pseudo", "encoder", "relabel", "train"):
        assert stages[stage]["cmd"] == f"python -m stages.{stage}"  # as in the script
