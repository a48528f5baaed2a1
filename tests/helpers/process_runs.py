"""Multi-process test runs: a small project, and functions that start its stages."""

import hashlib
import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from tests.helpers import ROOT
from tests.helpers.tiny_run import OPTIONS, prepare_folder, run_stage, run_until

LIMIT_S = 240  # a run that hangs fails; on two cores that are free each takes ten seconds
SMALL: dict[str, Any] = {
    "train.batch_size": 6,  # five photos: no number divides another
    "train.steps": 30,
    "train.checkpoint_every": 5,
    "train.optimizer": "sgd",
    "train.schedule": "poly",
    "train.lr": 1e-5,  # with larger ones roundings soon move a pixel to the other region
    "train.class_weight_power": 0.0,
    "carb.warmup_share": 0.4,
    "views.base_size": [32, 64],
    "views.crop": [32, 64],
    "views.local_window": [16, 32],
    "segmenter.arch": "fpn",
    "segmenter.encoder": "tu-test_resnet",
    "segmenter.options": {
        "encoder_depth": 3,
        "decoder_pyramid_channels": 32,
        "decoder_segmentation_channels": 32,
    },
    "distillation.steps": 4,
    "distillation.batch_size": 6,
}


def prepared(folder: Path, last: str, changes: dict[str, Any]) -> Path:
    """A project in ``folder``, its stages run by this process up to ``last``."""
    folder.mkdir()
    prepare_folder(folder, SMALL | changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(OPTIONS, "draw", ["--train", "5", "--val", "2", "--seed", "3"])
        patch.chdir(folder)
        run_until(last)
    return folder


def train_here(folder: Path) -> Path:
    """Train in this process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        result = run_stage("train")
        assert result.exit_code == 0, result.output
    return folder


def copy_of(folder: Path, name: str) -> Path:
    """A copy beside it, without what a run left."""
    return shutil.copytree(folder, folder.with_name(name))


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(arguments: list[str], folder: Path, **environ: str) -> "subprocess.Popen[str]":
    """Start Python in a folder, with one thread per process."""
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)} | environ
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=folder,
        env=env,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def torchrun(count: int, *program: str, nodes: int = 1, node: int = 0, port: int = 0) -> list[str]:
    """Arguments that start a program ``count`` times on one node."""
    return [
        *("-m", "torch.distributed.run", f"--nproc_per_node={count}", f"--nnodes={nodes}"),
        *(f"--node_rank={node}", "--master_addr=127.0.0.1"),
        *(f"--master_port={port or free_port()}", *program),
    ]


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Exit code and output of a process, which must end by itself."""
    try:
        output, _ = process.communicate(timeout=LIMIT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, 9)
        raise
    return process.returncode, output


def digest(folder: Path) -> str:
    """Of the names and bytes of all files below a folder."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(str(file.relative_to(folder)).encode() + file.read_bytes())
    return digest.hexdigest()


def losses(folder: Path) -> list[float]:
    """The logged losses of a training run."""
    lines = (folder / "results/train/plots/metrics/total.tsv").read_text("utf-8").splitlines()
    return [float(line.split()[1]) for line in lines[1:]]


def largest_difference(file: Path, other: Path) -> float:
    """Between the tensors of two safetensors files, which have the same names."""
    ours, theirs = load_file(file), load_file(other)
    assert list(ours) == list(theirs)
    return max(float((ours[k].double() - theirs[k].double()).abs().max()) for k in ours)


def children(pid: int) -> list[int]:
    """Processes that a process started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        text = status.read_text("utf-8") if status.exists() else ""
        if re.search(rf"^PPid:\t{pid}$", text, re.MULTILINE):
            found.append(int(status.parent.name))
    return sorted(found)
