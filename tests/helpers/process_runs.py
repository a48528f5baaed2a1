"""Runs of several processes: a small project, and functions that start its stages."""

import os
import re
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.helpers import ROOT
from tests.helpers.tiny_run import OPTIONS, prepare_folder, run_until

LIMIT_S = 240  # for a run that hangs; on two idle cores each takes ten seconds
SMALL: dict[str, Any] = {
    "train.batch_size": 6,  # does not divide five photos
    "train.steps": 30,
    "train.checkpoint_every": 5,
    "train.optimizer": "sgd",
    "train.schedule": "poly",
    "train.lr": 1e-5,  # with a larger one, rounding soon moves a pixel to the other region
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


def copy_of(folder: Path, name: str) -> Path:
    """A copy of a project next to it."""
    return shutil.copytree(folder, folder.with_name(name))


def free_port() -> int:
    """An unused port."""
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


def children(pid: int) -> list[int]:
    """Ids of the processes that a process started."""
    found = []
    for status in Path("/proc").glob("[0-9]*/status"):
        text = status.read_text("utf-8") if status.exists() else ""
        if re.search(rf"^PPid:\t{pid}$", text, re.MULTILINE):
            found.append(int(status.parent.name))
    return sorted(found)
