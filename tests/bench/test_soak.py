"""The soak: it trains for real, sees what its process holds, and tells what grew."""

import json
import os
import threading
from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from bench.soak import Sample, app, growth, held_by
from tests.helpers.import_closure import ROOT

STEADY = Sample(10, rss_mib=100, workers_mib=50, handles=20, threads=5, steps_per_s=9, miou=0.1)


def test_a_soak_trains_scores_and_tells_what_was_held(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    out = tmp_path / "soak.json"
    result = CliRunner().invoke(app, ["--steps", "40", "--every", "10", "--out", str(out)])
    content = json.loads(out.read_text())
    assert result.exit_code == (1 if content["grew"] else 0), result.output  # caches still fill
    samples = [Sample(**sample) for sample in content["samples"]]
    assert [sample.step for sample in samples] == [10, 20, 30, 40]
    for sample in samples:
        assert sample.rss_mib > sample.workers_mib > 10
        assert sample.threads >= 2
        assert sample.handles >= 6
        assert 0 < sample.miou < 1
        assert sample.steps_per_s > 0


def test_open_files_and_threads_are_counted(tmp_path: Path) -> None:
    _, files, threads = held_by(os.getpid())
    stop = threading.Event()
    thread = threading.Thread(target=stop.wait)
    thread.start()
    with (tmp_path / "a").open("w"), (tmp_path / "b").open("w"):
        more = held_by(os.getpid())
    stop.set()
    thread.join()
    assert more[1:] == (files + 2, threads + 1)
    assert held_by(os.getpid())[1:] == (files, threads)


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({}, []),
        ({"rss_mib": 102}, []),
        ({"rss_mib": 104}, ["rss_mib grew from 100 at step 10 to 104"]),
        ({"workers_mib": 60}, ["workers_mib grew from 50 at step 10 to 60"]),
        ({"handles": 21}, ["handles grew from 20 at step 10 to 21"]),
        ({"threads": 6}, ["threads grew from 5 at step 10 to 6"]),
        ({"handles": 19, "threads": 4, "steps_per_s": 1}, []),
    ],
)
def test_what_grows_after_the_run_has_settled_is_named(changes, found) -> None:
    first = replace(STEADY, rss_mib=1, workers_mib=1, handles=1, threads=1)
    assert growth([first, STEADY, STEADY, replace(STEADY, **changes)]) == found


def test_a_soak_too_short_to_tell_is_refused() -> None:
    result = CliRunner().invoke(app, ["--steps", "40", "--every", "20"])
    assert result.exit_code == 2
    assert "--steps 40: must be at least 3 times --every 20" in result.output
