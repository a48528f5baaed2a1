"""Speed benchmarks: ratios by hand, the authors' logits as reference, and that each one runs."""

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bench.authors import online_masks, patch_logits
from bench.speed import QUICK, app, run_bench
from bench.timing import race, ratio, summarise
from bench.workload import SMOKE
from pipeline.views import Box
from tests.helpers import ROOT, clip_folder


def test_a_ratio_is_the_median_of_the_rounds_ratios() -> None:
    times = {"a": [2.0, 9.0, 8.0], "b": [1.0, 3.0, 2.0]}
    found = ratio("bench", "a of b", times, of="a", to="b", target=2.5, at_least=True)
    assert (found.low, found.value, found.high, found.rounds) == (2.0, 3.0, 4.0, 3)
    assert found.met
    assert found.details == {"a, s": 8.0, "b, s": 2.0}

    assert not summarise("bench", "what", [1.1], target=1.0).met
    assert summarise("bench", "what", [5.0], target=None).met is None


def test_each_round_runs_every_contestant_once_in_turn() -> None:
    run: list[str] = []
    times = race(
        {name: (lambda name=name: run.append(name)) for name in "abc"},
        wait=lambda: None,
        seconds=0,
        least=3,
        settle=lambda name: run.append(name.upper()),
    )
    assert "".join(run) == "abc" + "AaBbCc" + "BbCcAa" + "CcAaBb"  # the first round is not timed
    assert [len(times[name]) for name in "abc"] == [3, 3, 3]


def test_the_authors_code_gives_the_same_logits(tmp_path: Path) -> None:
    clip = clip_folder.random_clip(tmp_path, clip_folder.VIT)
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 48, 80, generator=generator)
    text = torch.randn(5, clip.patch_features(images).shape[1], generator=generator)
    torch.testing.assert_close(
        patch_logits(clip, images, text), clip.patch_logits(images, text), rtol=0, atol=1e-5
    )


def test_online_masks_are_clip_s_choice_among_the_classes_present() -> None:
    images = torch.arange(2.0).repeat_interleave(4).reshape(1, 1, 2, 4)  # 0 above, 1 below

    def ask(seen: torch.Tensor) -> torch.Tensor:  # class 0 never, class 1 above, class 2 below
        return torch.cat([torch.full_like(seen, 9.0), 1 - seen, seen], dim=1)

    labels = torch.tensor([[False, True, True]])
    crops, windows = online_masks(ask, images, [Box(0, 1, 2, 2)], labels, zoom=2)
    assert crops.tolist() == [[[1, 1, 1, 1], [2, 2, 2, 2]]]
    assert windows.tolist() == [[[1, 1], [2, 2]]]


@pytest.mark.parametrize("name", ["tower", "authors", "online", "evaluation", "busy"])
def test_a_bench_runs(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(ROOT)
    measures = run_bench(name, "SMOKE")
    assert {one.bench for one in measures} == {name}


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # of dynamo itself
def test_the_quick_benches_are_written_and_printed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("COLUMNS", "300")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # as main does
    monkeypatch.setattr("bench.workload.CPU", SMOKE)
    monkeypatch.setattr("bench.speed.in_own_process", lambda function, *given: function(*given))
    result = CliRunner().invoke(app, ["--quick", "--out", str(tmp_path / "speed.json")])
    assert result.exit_code == 0, result.output
    measures = json.loads((tmp_path / "speed.json").read_text())["measures"]
    assert list(dict.fromkeys(one["bench"] for one in measures)) == list(QUICK)
    told = {name for one in measures for name in one["details"]}
    wanted = {"photos/s", "of the tower", "of products of 32 x 32", "first step, s"}
    assert wanted <= told
    assert all(name in result.output for name in ("64 x 128", "first step, s"))


def test_unknown_benches_and_devices_are_refused() -> None:
    for arguments in (["towr"], ["tower", "--device", "tpu"]):
        result = CliRunner().invoke(app, arguments)
        assert result.exit_code == 2
        assert "benches are tower, authors" in result.output
