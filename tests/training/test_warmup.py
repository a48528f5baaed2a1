"""Warm-up of CARB: a number or a share of the steps; a warning if it leaves CARB no step."""

from pathlib import Path

import pytest

from pipeline.config.carb import CarbParams
from pipeline.config.params import load_params
from tests.helpers import ROOT
from tests.helpers.tiny_run import prepare_folder, run_stage, run_until


def carb(**values: object) -> CarbParams:
    known = load_params(ROOT / "params.yaml").carb.model_dump()
    return CarbParams.model_validate(known | values)


@pytest.mark.parametrize(
    ("share", "steps", "warmup"),
    [(0.75, 1, 0), (0.29, 100, 29), (0, 9, 0), (1, 9, 9)],
)
def test_a_share_is_rounded_down(share: float, steps: int, warmup: int) -> None:
    made = carb(warmup_share=share)
    assert (made.warmup_of(steps), made.active_steps(steps)) == (warmup, steps - warmup)


def test_words_say_when_carb_acts() -> None:
    assert carb().acted(600) == "after 450 of 600 steps"
    assert carb(warmup_steps=450).acted(60) == "never acted (warm-up of 450 of 60 steps)"
    assert carb(warmup_share=1).acted(60) == "never acted (warm-up of 60 of 60 steps)"
    assert carb(enabled=False).acted(60) == "off"
    assert carb(enabled=False).active_steps(60) == 0


def test_a_training_without_carb_steps_and_local_level_is_reported_as_such(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """In the log, on the model card and in the report."""
    monkeypatch.chdir(tmp_path)
    level = {"zoom": 1.0, "window": [64, 64], "overlap": 0.5}
    changes = {"clip.levels": {"global": level}, "train.steps": 10}
    prepare_folder(tmp_path, changes | {"carb.warmup_steps": 450})
    run_until("encoder")
    assert run_stage("train").exit_code == 0
    assert [line for line in caplog.messages if line.startswith("params.yaml: ")] == [
        "params.yaml: train.local_term is true, but clip.levels has no local level; training uses "
        "the global view only",
        "params.yaml: carb.warmup_steps (450) is used, carb.warmup_share (0.5) is ignored; leave "
        "one of them empty",
        "params.yaml: carb.warmup_steps leaves CARB no step, the warm-up is 450 of train.steps "
        "(10); lower it, or set carb.enabled to false",
    ]
    never = "never acted (warm-up of 450 of 10 steps)"
    card = (tmp_path / "models/segmenter/README.md").read_text("utf-8")
    assert f"- CARB: {never}\n" in card
    assert "without Consistency-Aware Region Balancing" in card
    reported = run_stage("report")
    report = (tmp_path / "results/report.html").read_text("utf-8")
    assert f"CARB: {never}." in report
    header = report.split("</header>")[0]
    assert "Consistency-Aware" not in header
    assert "Global-Local" not in header
    assert never in " ".join(reported.output.split())
