"""A batch that does not fit into memory is told with the parameter to lower."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers import ROOT
from tests.helpers.tiny_run import prepare_folder, run_until, write_params

# The libraries map gigabytes that they never use; the stage gets one more than those.
LIMITED = """
import resource, sys
from pathlib import Path
from pipeline.training import run as training_run
from stages.train import app

pages = int(Path("/proc/self/statm").read_text().split()[0])
limit = pages * resource.getpagesize() + 2**30
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
app()
"""


def test_a_batch_too_large_names_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare_folder(tmp_path)
    monkeypatch.chdir(tmp_path)
    run_until("encoder")
    write_params(tmp_path, {"train.batch_size": 512})
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
        "lower params.yaml: train.batch_size (512), views.crop or train.workers (0)"
    )
    assert "Traceback" not in result.stderr
    assert not (tmp_path / "models/segmenter").exists()
    assert not (tmp_path / "results/train").exists()
