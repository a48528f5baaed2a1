"""The arithmetic of costs, against the operations counted by hand."""

import pytest
from rich.console import Console
from typer.testing import CliRunner

from bench.costs import Costs, app, cost_table, count_costs
from pipeline.config.params import FusedParams, load_params
from tests.helpers.import_closure import ROOT

PARAMS = load_params(ROOT / "recipes/cityscapes.yaml")


def test_costs_of_the_paper_s_recipe_as_counted_by_hand() -> None:
    costs = count_costs(PARAMS, (512, 1024), 19)
    tokens, width, layers = 1 + 32 * 64, 768, 12
    linear = 24 * tokens * width**2 * layers  # of all blocks: 12 weights of width x width
    attention = 4 * tokens**2 * width * layers
    patches = 2 * 32 * 64 * (3 * 16**2) * width
    window = (linear + attention + patches) / 1e12  # a little less in the last block
    # one window on the global level; 1024 x 2048 in windows of 1024 x 512, half over each other: 7
    assert 8 * 0.9 * window < costs.clip_tflop < 8 * window
    assert costs.eval_tflop == pytest.approx(4 * costs.step_tflop / 3, rel=0.02)
    assert costs.store_bytes == 2 * 19 * (32 * 64 + 64 * 128)
    assert costs.visit_bytes == costs.store_bytes
    assert costs.shard_photos == {"global": 50, "local": 50}


def test_a_fused_level_is_stored_and_read_in_the_place_of_the_global_one() -> None:
    fused = FusedParams(size=(512, 1024), stride=8, radius=4)
    clip = PARAMS.clip.model_copy(update={"fused": fused})
    plain, costs = (
        count_costs(params, (512, 1024), 19)
        for params in (PARAMS, PARAMS.model_copy(update={"clip": clip}))
    )
    assert costs.store_bytes == plain.store_bytes + 2 * 19 * 64 * 128
    assert costs.visit_bytes == 2 * 2 * 19 * 64 * 128  # fused and local: both twice the global grid
    assert costs.clip_tflop == plain.clip_tflop


def test_the_table_follows_from_the_costs() -> None:
    costs = Costs(36, 1, 2, 3, store_bytes=2 * 10**6, visit_bytes=10**6, shard_photos={"a": 50})
    train = PARAMS.train.model_copy(update={"steps": 1000, "batch_size": 9})
    params = PARAMS.model_copy(update={"train": train})
    console = Console(width=200, record=True)
    console.print(cost_table(costs, params, tflops=100))
    lines = [line.split("│")[1:-1] for line in console.export_text().splitlines()]
    for_a_million = [line[3].strip() for line in lines if line]
    # 36e6 / 3.6e5 h; 2 TB; 20 000 shards and records; 8 x 1e6 x 2 / 3.6e5 h more, or 8 x 1e6 x 3
    assert for_a_million == ["100.0", "2.000", "40,000", "144.4", "66.7"]


def test_the_command_tells_the_costs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    result = CliRunner().invoke(app, ["recipes/cityscapes.yaml", "--photo", "512", "1024"])
    assert result.exit_code == 0, result.output
    assert "clip_tflop" in result.output
    assert "100,000,000" in result.output
