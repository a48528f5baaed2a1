"""The commands of docs/experiments.md, on six scenes and with two values of tau."""

import re
import subprocess
import time
from pathlib import Path

import pytest

from bench.settings import write_changed
from tests.helpers import PAPER, ROOT
from tests.helpers.faults.project import PATIENCE_S, Project
from tests.helpers.tiny_run import TINY, run_stage

PAGE = (ROOT / "docs/experiments.md").read_text("utf-8")
IDENTITY = {
    f"GIT_{who}_{what}": "a@b.c" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}
QUICK = {"train.steps": 10, "carb.warmup_share": 0.5, "train.preview_every": 10, "train.workers": 0}
FEWER = ("carb.tau=0,0.25,0.5,0.75", "carb.tau=0,0.5")
SECOND = (
    "inputs",
    "prepare",
    "pseudo",
    "encoder",
    "relabel",
    "train",
    "eval",
    "eval_pseudo",
    "report",
)


def block(heading: str, number: int = 0) -> str:
    """A block of commands under a heading of the page."""
    part = re.split(r"^#+ ", PAGE.partition(f"# {heading}\n")[2], maxsplit=1, flags=re.M)[0]
    return re.findall(r"```sh\n(.*?)```", part, flags=re.S)[number]


def run(project: Project, commands: str) -> str:
    """Run a block in the shell; every command must succeed. Return its output."""
    scratch = str(project.folder / "scratch")
    return project.finish("bash", "-ec", commands, CARB_SCRATCH=scratch, **IDENTITY)


def wait_for_queue(project: Project) -> str:
    """Wait until no experiment is queued or running; return the last status."""
    end, status = time.monotonic() + PATIENCE_S, "Queued"
    while ("Queued" in status or "Running" in status) and time.monotonic() < end:
        time.sleep(5)  # each status costs a second of CPU time that the runs need
        status = run(project, "dvc queue status")
        if "Running" not in status and "Queued" in status and "0 active" in status:
            run(project, "dvc queue start")  # DVC #10428
    return status


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Project:
    project = Project.make(tmp_path_factory.mktemp("experiments") / "clone", QUICK, git=True)
    run(project, "git add --all && git commit --quiet --message code")
    project.run_here()
    run(project, "git add --all && git commit --quiet --message 'first run'")
    return project


@pytest.fixture(scope="module")
def swept(project: Project) -> Project:
    run(project, block("A sweep").replace(*FEWER))
    status = wait_for_queue(project)
    assert status.count("Success") == 2, status
    return project


def test_a_sweep_is_shown_compared_applied_and_undone(swept: Project) -> None:
    shown = run(swept, block("Show"))
    assert re.search(r"^ +Experiment +mIoU +pixel accuracy +carb.tau +$", shown, flags=re.M)
    assert re.search(r"\[tau-2\] +[\d.]+ +[\d.]+ +0.5 +$", shown, flags=re.M)
    compared = run(swept, block("Compare").replace("tau-3", "tau-2"))
    assert re.search(r"^results/segmenter.json +mIoU +0\.\d{1,3} ", compared, flags=re.M)
    assert re.search(r"^params.yaml +carb.tau +0.0 +0.5$", compared, flags=re.M)
    assert (swept.folder / "dvc_plots/index.html").is_file()
    before = swept.outputs()
    run(swept, block("Keep one").replace("tau-3", "tau-2").splitlines()[0])
    assert "  tau: 0.5" in (swept.folder / "params.yaml").read_text()
    assert swept.outputs() != before
    run(swept, block("Keep one", 1))
    assert swept.outputs() == before
    assert run(swept, "git status --porcelain") == ""  # no file is missing in .gitignore


def test_experiments_share_one_scratch_folder(swept: Project) -> None:
    assert {path.name for path in (swept.folder / "scratch").iterdir()} <= {
        "speed",
        "dataset_files.json",
    }
    assert list((swept.folder / "scratch/speed").glob("train-*/plots/metrics/images_per_s.tsv"))


def test_a_colleague_trains_without_clip_and_reads_the_spread(
    swept: Project, tmp_path: Path
) -> None:
    run(
        swept,
        "git init --quiet --bare --initial-branch main ../hub && git remote add origin ../hub",
    )
    run(swept, "git config push.autoSetupRemote true")
    run(swept, f"SHARED={tmp_path}\n" + block("Sharing CLIP's work"))
    colleague = Project(tmp_path / "colleague")
    run(swept, f"git clone --quiet ../hub {colleague.folder}")
    for weights in colleague.folder.glob("clip/*.safetensors"):
        weights.unlink()
    said = run(colleague, block("Sharing CLIP's work", 1))
    assert "Pulling data for stage: 'pseudo'" in said
    assert re.findall(r"Running stage '(\w+)'", said) == ["inputs", "train", "eval", "report"]
    ours, theirs = swept.folder / "data/masks.zarr", colleague.folder / "data/masks.zarr"
    assert contents(ours) == contents(theirs)
    table = run(colleague, block("Seeds, mean and spread", 1)).splitlines()
    assert re.fullmatch(r"\| as it is \| [\d.]+ ± [\d.]+ \| [\d.]+ [\d.]+ \| .*", table[2])
    assert len(table) == 3


def contents(folder: Path) -> dict[Path, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def test_two_data_sets_in_one_clone_keep_their_pseudo_masks(swept: Project) -> None:
    folder, there, back = swept.folder, *(block("Two data sets in one clone", n) for n in (2, 1))
    first = contents(folder / "data/masks.zarr")
    scenes = folder.parent / "street2"
    assert run_stage("draw", "--out", str(scenes), "--seed", "9").exit_code == 0
    (folder / "recipes").mkdir()
    changes = TINY | QUICK | {"dataset.root": str(scenes)}
    write_changed(PAPER, folder / "recipes/street2.yaml", changes)
    before, after = block("Two data sets in one clone").split("dvc repro\n")
    run(swept, before)
    swept.run_here(*SECOND)
    run(swept, after)
    second = contents(folder / "data/masks.zarr")
    assert second != first
    run(swept, back)
    assert contents(folder / "data/masks.zarr") == first
    assert re.findall(r"Running stage '(\w+)'", run(swept, "dvc repro")) == ["inputs"]
    assert "street2" in run(swept, "dvc exp show --all-branches --csv --hide-workspace")
    run(swept, block("Where the files are").replace("tau-4", "tau-1"))
    run(swept, there)
    assert contents(folder / "data/masks.zarr") == second


def test_every_block_is_valid_shell_syntax() -> None:
    blocks = re.findall(r"```sh\n(.*?)```", PAGE, flags=re.S)
    assert len(blocks) > 10
    for commands in blocks:
        subprocess.run(["bash", "-n"], input=commands, text=True, check=True)
