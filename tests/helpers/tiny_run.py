"""A tiny run of the whole pipeline: six small drawn scenes, a random CLIP, a few steps."""

import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from bench.settings import write_changed
from stages import draw, encoder, eval_pseudo, inputs, prepare, pseudo, relabel, report, train
from stages import eval as evaluate
from tests.helpers import PAPER
from tests.helpers.clip_folder import VIT, model_config, random_weights, write_clip

APPS = {
    "draw": draw.app,
    "inputs": inputs.app,
    "prepare": prepare.app,
    "pseudo": pseudo.app,
    "encoder": encoder.app,
    "relabel": relabel.app,
    "train": train.app,
    "eval": evaluate.app,
    "eval_pseudo": eval_pseudo.app,
    "report": report.app,
}
OPTIONS = {
    "draw": ["--train", "4", "--val", "2", "--seed", "3"],
    "eval": ["--out", "results/eval", "--previews", "results/train/previews"],
}
TINY: dict[str, Any] = {
    "clip.model": "local-dir:clip",
    "clip.templates": "plain",
    "clip.precision": "32-true",
    "views.base_size": [64, 128],
    "views.crop": [64, 128],
    "views.local_window": [32, 64],
    "segmenter.encoder": "tu-test_resnet",
    "segmenter.encoder_weights": "none",
    "segmenter.options": {"encoder_depth": 3, "decoder_channels": [16, 8, 4]},
    "relabel.folds": 2,
    "relabel.steps": 4,
    "carb.warmup_share": 0.5,
    "train.steps": 20,
    "train.batch_size": 2,
    "train.workers": 0,
    "train.precision": "32-true",
    "train.checkpoint_every": 10,
    "train.preview_every": 20,
}
SHORT = {"train.steps": 10, "train.checkpoint_every": 5, "train.preview_every": 10}
LARGE = 2**20  # bytes


def write_params(folder: Path, changes: dict[str, Any]) -> None:
    """The paper's recipe with tiny sizes, then ``changes`` (dotted name -> value)."""
    write_changed(PAPER, folder / "params.yaml", TINY | changes)


def prepare_folder(folder: Path, changes: dict[str, Any] | None = None) -> None:
    """Parameters and a random CLIP, as a clone would have them."""
    write_params(folder, changes or {})
    write_random_clip(folder)


def write_random_clip(folder: Path) -> None:
    """A tiny CLIP in ``clip/``."""
    config = model_config(VIT)
    write_clip(folder / "clip", config, random_weights(config))


def run_stage(stage: str, *arguments: str) -> Result:
    """Run a stage's command line in this process and in the current folder."""
    return CliRunner().invoke(APPS[stage], [*OPTIONS.get(stage, []), *arguments])


def finished_run(folder: Path, changes: dict[str, Any] | None = None) -> Path:
    """Run the whole pipeline in a folder of its own; see also the fixture `finished`."""
    prepare_folder(folder, changes)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        run_until("report")
    return folder


def copy_run(finished: Path, target: Path) -> Path:
    """Copy a run; large files are hard links, because stages replace files and never edit them."""

    def copy(source: str, copied: str) -> None:
        large = Path(source).stat().st_size > LARGE
        (os.link if large else shutil.copy2)(source, copied)

    return Path(shutil.copytree(finished, target, copy_function=copy))


def file_states(folder: Path) -> dict[str, tuple[int, ...]]:
    """Inode, size and time of every file, link and folder, except logs of speed and checkpoints.

    They change whenever a file is written, replaced or removed.
    """
    found = {}
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if "scratch" not in relative.parts:
            stat = path.lstat()
            is_folder = path.is_dir() and not path.is_symlink()
            found[str(relative)] = (
                (0,) if is_folder else (stat.st_ino, stat.st_size, stat.st_mtime_ns)
            )
    return found


def run_until(last: str) -> None:
    """Run the stages in order, up to ``last``."""
    for stage in APPS:
        result = run_stage(stage)
        assert result.exit_code == 0, f"{stage}: {result.output} {result.exception!r}"
        if stage == last:
            return
