"""A command continues when nobody reads its output or its messages."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT

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


def run(folder: Path, redirected: str) -> subprocess.CompletedProcess[str]:
    """The program in a shell, its streams redirected."""
    (folder / "program.py").write_text(PROGRAM)
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} program.py {redirected}"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        text=True,
        capture_output=True,
    )


@pytest.mark.parametrize(
    "redirected",
    [
        "2>&-",
        "0<&- >&- 2>&-",
        "2>&1 | head -1",
        "2> >(exec true)",
        pytest.param(
            "2> /dev/full",
            marks=pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here"),
        ),
    ],
)
def test_work_is_done_whether_or_not_anybody_reads(tmp_path: Path, redirected: str) -> None:
    ended = run(tmp_path, redirected)
    assert ended.returncode == 0, ended
    assert (tmp_path / "done").read_text() == "whole"
    assert (tmp_path / "opened").read_text() == ""
    assert "Traceback" not in ended.stderr
    assert "Exception ignored" not in ended.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_output_that_a_full_disk_does_not_take_is_an_error(tmp_path: Path) -> None:
    ended = run(tmp_path, "> /dev/full")
    assert ended.returncode == 2
    assert ended.stderr.splitlines()[-1] == "error: [Errno 28] No space left on device"
