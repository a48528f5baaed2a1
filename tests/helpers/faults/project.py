"""Small copies of the project under DVC, to be started, killed and damaged."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.helpers import ROOT
from tests.helpers.tiny_run import APPS, OPTIONS, prepare_folder, run_stage

DRAWN = "--train 120 --val 40 --seed 2"  # in dvc.yaml
FEW = " ".join(OPTIONS["draw"])
OUTPUTS = ("data", "models", "results")
CHANGES: dict[str, Any] = {"train.steps": 30, "train.checkpoint_every": 5, "train.workers": 1}
AS_DVC = {"eval": ("--previews", "results/train/previews")}  # arguments that dvc.yaml adds
PATIENCE_S = 300
KEPT = (".gitignore", "speed", "dataset_files.json")  # in scratch/, also after a run


class Run(subprocess.Popen[str]):
    """A started command whose output goes to a file."""

    log: Path

    def said(self) -> str:
        """Wait for its end; return its output."""
        self.wait(timeout=PATIENCE_S)
        return self.log.read_text()


@dataclass
class Project:
    """A copy of the project with few scenes and few steps.

    Attributes:
        folder: the copy.
        runs: the commands that were started.
    """

    folder: Path
    runs: list[Run] = field(default_factory=list)

    @classmethod
    def make(
        cls, folder: Path, changes: dict[str, Any] | None = None, *, git: bool = False
    ) -> "Project":
        """Copy the code, reduce the sizes, and put it under DVC and, with ``git``, git."""
        for part in ("stages", "pipeline", "demo", "bench"):
            shutil.copytree(ROOT / part, folder / part)
        recipe = (ROOT / "dvc.yaml").read_text()
        assert DRAWN in recipe
        (folder / "dvc.yaml").write_text(recipe.replace(DRAWN, FEW))
        prepare_folder(folder, CHANGES | (changes or {}))
        project = cls(folder)
        if git:
            project.finish("git", "init", "--quiet", "--initial-branch", "main")
        project.finish("dvc", "init", "--quiet", *([] if git else ["--no-scm"]))
        if git:
            for file in (".gitignore", ".dvcignore", ".dvc/config"):
                shutil.copy(ROOT / file, folder / file)
        return project

    def start(self, *command: str, **environment: str) -> Run:
        """Start a command in a process group of its own; see `Run.said`."""
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        quiet = {"PATH": path, "OMP_NUM_THREADS": "1", "DVC_NO_ANALYTICS": "1"}
        said = self.folder.with_name(f"{self.folder.name}-{len(self.runs)}.log")
        with said.open("w") as log:
            run = Run(
                command,
                cwd=self.folder,
                env=os.environ | quiet | environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        run.log = said
        self.runs.append(run)
        return run

    def finish(self, *command: str, **environment: str) -> str:
        """Run a command that must succeed; return its output."""
        run = self.start(*command, **environment)
        said = run.said()
        assert run.returncode == 0, said
        return said

    def run_here(self, *stages: str) -> None:
        """Run stages in this process, to save their imports, and record them with `dvc commit`."""
        stages = stages or tuple(APPS)
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(self.folder)
            for stage in stages:
                result = run_stage(stage, *AS_DVC.get(stage, ()))
                assert result.exit_code == 0, f"{stage}: {result.output} {result.exception!r}"
        self.finish("dvc", "commit", "--force", "--quiet", *stages)

    def outputs(self) -> dict[str, str]:
        """SHA-256 of every output and of dvc.lock."""
        files = [file for part in OUTPUTS for file in sorted((self.folder / part).rglob("*"))]
        files = [file for file in files if file.is_file() and file.name != ".gitignore"]
        return {
            file.relative_to(self.folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
            for file in [*files, self.folder / "dvc.lock"]
        }

    def leftovers(self) -> list[str]:
        """Drafts, locks and scratch files that a finished run must not leave."""
        hidden = [file for part in OUTPUTS for file in (self.folder / part).rglob(".*")]
        scratch = (self.folder / "scratch").glob("*")
        return [path.name for path in [*hidden, *scratch] if path.name not in KEPT]

    def writing(self) -> str:
        """Path of something that is being written, or an empty string."""
        return next(self._being_written(), "")

    def _being_written(self) -> Iterator[str]:
        for part in (*OUTPUTS, "scratch"):
            for path in (self.folder / part).rglob("*"):
                drafted = path.name.endswith((".draft", ".partial"))
                if drafted or (path.is_file() and self._is_open_shard(path)):
                    yield path.relative_to(self.folder).as_posix()

    def _is_open_shard(self, path: Path) -> bool:
        """Whether a file belongs to a shard that is not recorded as finished."""
        if "logits" not in path.parts or path.name == "zarr.json":
            return False
        array = next(parent for parent in path.parents if parent.name == "logits")
        shard = path.relative_to(array / "c").parts[0]
        record = array.parent.parent / "finished" / f"{array.parent.name}-{shard}.json"
        return not record.exists()

    def close(self) -> None:
        """End what is still running."""
        for run in self.runs:
            kill_group(run)


def stage_of(run: Run) -> str:
    """Name of the stage that `dvc repro` is running, or an empty string."""
    try:
        children = psutil.Process(run.pid).children(recursive=True)
        lines = [child.cmdline() for child in children]
    except psutil.Error:
        return ""
    names = [part for line in lines for part in line if part.startswith("stages.")]
    return names[0].removeprefix("stages.") if names else ""


def wait_for_stage(run: Run, stage: str) -> bool:
    """Wait until a stage runs; False if the run ends first."""
    end = time.monotonic() + PATIENCE_S
    while run.poll() is None and time.monotonic() < end:
        if stage_of(run) == stage:
            return True
        time.sleep(0.01)
    return False


def kill_group(run: Run) -> None:
    """SIGKILL a run and all processes it started."""
    if run.poll() is None:
        os.killpg(run.pid, 9)
    run.wait()
