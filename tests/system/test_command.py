"""Commands: one-sentence errors, tracebacks of bugs, out of memory, closed streams."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
import typer
from PIL import Image
from torch._utils import ExceptionWrapper
from typer.testing import CliRunner

from pipeline.scenes.image_io import read_image
from pipeline.system.command import command, memory_hint
from pipeline.system.devices import pick_precision, start_fabric
from pipeline.system.progress import prefetch_in_threads
from pipeline.system.text import short_repr, without_folders
from tests.helpers import ROOT
from tests.helpers.tiny_run import SHORT, write_params

Work = Callable[[], object]


def run_as_command(work: Work) -> None:
    @command
    def main() -> None:
        work()

    main()


def in_a_worker(work: Work) -> None:
    """Raise an error as torch does for one of a data loader's worker."""
    try:
        work()
    except Exception:
        ExceptionWrapper(where="in DataLoader worker process 0").reraise()


def read_missing() -> object:
    return read_image(Path("gone.png"))


def read_in_a_thread() -> object:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(read_missing).result()


def wrapped() -> object:
    try:
        return int("many")
    except ValueError as error:
        raise ValueError("gone.png: many\n  is not a number") from error


OURS: dict[str, Work] = {
    "here": read_missing,
    "thread": read_in_a_thread,
    "worker": lambda: in_a_worker(read_missing),
    "cause": wrapped,
}


@pytest.mark.parametrize("name", OURS)
def test_our_errors_are_one_line_and_exit_code_2(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        run_as_command(OURS[name])
    assert caught.value.code == 2
    assert caught.value.__suppress_context__
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.startswith("error: gone.png: ")
    assert printed.err.count("\n") == 1
    assert "Traceback" not in printed.err


def test_the_systems_errors_about_files_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        run_as_command(lambda: (tmp_path / "x").read_text())
    found = f"error: [Errno 2] No such file or directory: '{tmp_path / 'x'}'\n"
    assert capsys.readouterr().err == found


def one_value() -> object:
    return torch.nn.BatchNorm2d(3).train()(torch.zeros(1, 3, 1, 1))


def raising(error: Exception) -> Work:
    def fail() -> None:
        raise error

    return fail


BUGS: dict[str, Work] = {
    "a bug of ours": raising(RuntimeError("x")),
    "torch": one_value,
    "numpy, in Python": lambda: np.stack([]),
    "int": lambda: int("many"),
    "in a thread": lambda: list(prefetch_in_threads(["b"], Path("a").relative_to)),
    "in a worker": lambda: in_a_worker(one_value),
    "an OSError": lambda: Image.open(ROOT / "params.yaml"),
}


@pytest.mark.parametrize("name", BUGS)
def test_a_bug_and_a_librarys_error_keep_their_traceback(name: str) -> None:
    with pytest.raises((ValueError, OSError, RuntimeError), match=r".") as caught:
        run_as_command(BUGS[name])
    assert caught.value.__traceback__ is not None


def test_a_command_is_a_command_line_with_its_own_options_and_result() -> None:
    @command
    def main(count: int = 3) -> int:
        """Count."""
        if count < 0:
            raise ValueError("count must not be negative")
        return count

    assert main(count=4) == 4
    app = typer.Typer(add_completion=False)
    app.command()(main)
    result = CliRunner().invoke(app, ["--count", "-1"])
    assert (result.exit_code, result.output) == (2, "error: count must not be negative\n")
    assert CliRunner().invoke(app, ["--count", "many"]).exit_code == 2
    assert CliRunner().invoke(app, ["--count", "1"]).exit_code == 0


def test_a_users_own_pipeline_py_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").write_text("raise RuntimeError")
    program = [sys.executable, "-m", "stages.draw", "--help"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(program, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'pipeline.py'}: hides carb's package")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "work",
    [
        lambda: torch.empty(2**50),
        raising(MemoryError()),
        raising(torch.OutOfMemoryError("CUDA out of memory. Tried to allocate.\nMore lines")),
        raising(RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed.")),
    ],
)
def test_every_kind_of_missing_memory_names_what_to_lower(work: Work) -> None:
    with pytest.raises(ValueError, match=r"^out of memory \([^\n]*\); lower x$"):  # noqa: SIM117
        with memory_hint("lower x"):
            work()


def test_other_errors_are_not_about_memory() -> None:
    with pytest.raises(RuntimeError, match="shapes differ"), memory_hint("wait"):
        raise RuntimeError("shapes differ")


# Libraries map gigabytes that they never use; the stage gets half a gigabyte more than those.
LIMITED = """
import resource
from pathlib import Path
from pipeline.training import run as training_run
from stages.train import app

pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 2**29
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
app()
"""


def test_a_batch_too_large_names_what_to_lower(run_copy: Path) -> None:
    for output in ("models/segmenter", "results/train"):
        shutil.rmtree(run_copy / output)
    write_params(run_copy, SHORT | {"train.batch_size": 256})
    result = subprocess.run(
        [sys.executable, "-c", LIMITED],
        env={"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert result.returncode == 2, result.stderr
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert "out of memory" in line
    assert line.endswith(
        "lower params.yaml: train.batch_size (256), views.crop or train.workers (0)"
    )
    assert "Traceback" not in result.stderr
    assert not (run_copy / "models/segmenter").exists()
    assert not (run_copy / "results/train").exists()


@pytest.mark.parametrize(("units", "expected"), [(True, "bf16-mixed"), (False, "32-true")])
def test_auto_is_bfloat16_where_the_hardware_multiplies_in_it(
    monkeypatch: pytest.MonkeyPatch, units: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: units)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: units, raising=False)
    for device in ("cuda", "cpu"):
        assert pick_precision("auto", device) == expected
        for name in ("bf16-mixed", "32-true"):
            assert pick_precision(name, device) == name


def test_fabric_starts_on_this_machine_and_is_deterministic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("CARB_DEVICES", raising=False)
    fabric = start_fabric("32-true")
    assert (fabric.world_size, fabric.global_rank) == (1, 0)
    assert torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(False)


PROGRAM = """
import logging, os, sys
from pathlib import Path
from pipeline.system.command import command
from pipeline.system.progress import progress

@command
def main():
    with open("opened", "w") as file:
        assert file.fileno() > 2
    for item in progress(range(3), label="photos", total=3):
        logging.getLogger("carb").warning("message %d", item)
        for _ in range(2000):
            print("line", item, flush=True)
    os.write(2, b"of a library in C")
    Path("done").write_text("whole")

main()
"""


def run_in_shell(folder: Path, redirected: str) -> subprocess.CompletedProcess[str]:
    """Run the program in a shell with its streams redirected."""
    (folder / "program.py").write_text(PROGRAM)
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} program.py {redirected}"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
    )


@pytest.mark.parametrize(
    "redirected", ["0<&- >&- 2>&-", "2>&1 | head -1", "2> >(exec true)", "2> /dev/full"]
)
def test_work_is_done_if_nobody_reads_its_output(tmp_path: Path, redirected: str) -> None:
    if redirected.endswith("full") and not Path("/dev/full").exists():
        pytest.skip("no /dev/full here")
    ended = run_in_shell(tmp_path, redirected)
    assert ended.returncode == 0, ended
    assert (tmp_path / "done").read_text() == "whole"
    assert (tmp_path / "opened").read_text() == ""
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_under_the_output_is_an_error(tmp_path: Path) -> None:
    ended = run_in_shell(tmp_path, "> /dev/full")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == "error: [Errno 28] No space left on device"


def test_an_absolute_path_is_cut_to_its_name() -> None:
    for name, wanted in {
        "/home/me/photos of mine/": ".../photos of mine",
        "/home/me/a:b/c": ".../c",
        "local-dir:/home/me/clip": "local-dir:.../clip",
        "local-dir:C:/Users/me/clip": "local-dir:.../clip",
        "\\\\server\\share\\photos": ".../photos",
    }.items():
        assert without_folders(name) == wanted
    for name in ("val", "data/demo", "local-dir:demo/clip", "hf-hub:a/b"):
        assert without_folders(name) == name


def test_a_date_is_shown_as_it_is_written() -> None:
    assert short_repr(date(2024, 1, 2)) == "2024-01-02"
