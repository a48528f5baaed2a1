"""`carb doctor` and `carb fetch`: what a run needs, fetched once, and what it will take."""

import math
import mmap
import re
from pathlib import Path

import pytest
import torch
from huggingface_hub import constants
from ruamel.yaml import YAML
from typer.testing import CliRunner, Result

from pipeline.clip.dense import load_clip
from pipeline.config.params import load_params
from pipeline.planning.forecast import store_bytes
from pipeline.planning.memory import IN_USE, PEAK, process_bytes, reset_peak
from pipeline.store.reader import PseudoMaskStore
from stages import doctor, fetch
from tests.helpers import ROOT
from tests.helpers.fake_hub import Hub
from tests.helpers.tiny_run import prepare_folder, write_params

HUB_CLIP = {"clip.model": "Tiny-16", "clip.pretrained": "lab"}


def carb_doctor() -> Result:
    return CliRunner().invoke(doctor.app, [])


def test_weights_are_named_fetched_once_and_then_load_without_a_network(
    local_hub: Hub,
    tagged_clip: dict[str, torch.Tensor],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.chdir(tmp_path)
    local_hub.put("lab/tiny", tagged_clip, "open_clip_model.safetensors")
    write_params(tmp_path, HUB_CLIP)
    before = carb_doctor()
    assert before.exit_code == 1
    missing = "clip.model: lab/tiny/open_clip_model.safetensors is missing; run `carb fetch`"
    assert f"not ready: params.yaml: {missing}" in before.output
    assert " steps of " in before.output  # measured with random weights
    assert local_hub.asked == []
    for found in ("downloaded", "at hand"):
        caplog.clear()
        assert CliRunner().invoke(fetch.app, []).exit_code == 0
        assert f"CLIP (Tiny-16, lab): {found} (" in caplog.text
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    clip = load_clip("Tiny-16", "lab")
    assert torch.equal(clip.model.visual.proj, tagged_clip["visual.proj"])
    after = carb_doctor()
    assert (after.exit_code, after.output.splitlines()[-1]) == (0, "ready: dvc repro")


def test_a_folder_without_photos_is_not_ready(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    prepare_folder(tmp_path, {"dataset.name": "camvid", "dataset.root": "nowhere"})
    monkeypatch.setattr("os.getloadavg", lambda: (3.21, 0.0, 0.0))
    result = carb_doctor()
    assert result.exit_code == 1
    assert "3.2 cores were in use" in result.output
    assert "not ready: params.yaml: dataset.root: nowhere is not a folder" in result.output


def test_the_forecast_store_has_the_size_of_the_real_one(finished: Path) -> None:
    store = PseudoMaskStore.open(finished / "data/masks.zarr")
    grids = store.attributes["grids"].values()
    real = 2 * len(store.classes) * sum(math.prod(grid) for level in grids for grid in level)
    sizes = [tuple(size) for size in store.attributes["sizes"]]
    params = load_params(finished / "params.yaml").clip
    assert store_bytes(sizes, len(sizes), len(store.classes), params, 16) == real


def test_a_large_crop_is_measured_smaller_and_scaled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    large = {"views.crop": [512, 1024], "views.base_size": [512, 1024], "train.batch_size": 8}
    prepare_folder(tmp_path, large | {"views.local_window": [256, 512]})
    reset_peak()  # of the other tests of this process
    output = carb_doctor().output
    assert "a step of 2 crops of 512x256, times 16" in output
    pseudo, train = (
        float(value) * {"MB": 1, "GB": 1000}[unit]
        for value, unit in re.findall(r"([\d.]+) ([MG]B) memory:", output)
    )
    images = 8 * 3 * 512 * 1024 * 4 / 1e6  # MB
    assert train > pseudo + 10 * images  # the first layers alone hold more


def test_the_peak_memory_is_that_since_the_reset() -> None:
    for size in (90_000_000, 60_000_000):
        reset_peak()
        with mmap.mmap(-1, size) as block:  # not from memory that the process already holds
            for start in range(0, size, mmap.PAGESIZE):
                block[start] = 1
        peak, in_use = process_bytes(PEAK), process_bytes(IN_USE)
    assert peak is not None
    assert in_use is not None
    assert 50_000_000 < peak - in_use < 80_000_000


def test_the_scenes_of_the_demo_are_those_that_dvc_draws() -> None:
    command = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]["draw"]["cmd"]
    for split, count in doctor.DEMO.items():
        assert f"--{split} {count} " in command
