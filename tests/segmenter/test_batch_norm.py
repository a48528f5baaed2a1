"""A batch of one image is refused if a BatchNorm would see one value per channel."""

from pathlib import Path

import pytest
import torch

from pipeline.segmenter.network import build_segmenter, check_batch_norm
from tests.helpers.tiny_run import prepare_folder, run_stage, run_until, write_params

LARGER = ", or enlarge views.crop"


def network(arch: str) -> torch.nn.Module:
    return build_segmenter(arch=arch, encoder="resnet18", num_classes=3, options={}, text=None)


def check(arch: str, batch_size: int, crop: tuple[int, int]) -> None:
    check_batch_norm(network(arch), batch_size=batch_size, crop=crop, name="train.batch_size")


@pytest.mark.parametrize("arch", ["deeplabv3", "pan", "upernet"])
def test_networks_that_pool_the_whole_map_need_two_images(arch: str) -> None:
    with pytest.raises(ValueError, match=r"^params.yaml: train.batch_size is 1 .*2 or more$"):
        check(arch, 1, (64, 96))
    check(arch, 2, (64, 96))


def test_a_deepest_map_of_one_pixel_needs_two_images_or_a_larger_crop() -> None:
    with pytest.raises(ValueError, match=rf"views.crop \[32, 32\] a BatchNorm .*{LARGER}$"):
        check("unet", 1, (32, 32))
    check("unet", 1, (32, 64))
    check("unet", 2, (32, 32))


def test_the_check_computes_nothing_and_leaves_the_network_as_it_is() -> None:
    model, before = network("unet").eval(), torch.get_rng_state()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    check_batch_norm(model, batch_size=1, crop=(64, 96), name="train.batch_size")
    assert not model.training
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())


def test_train_and_encoder_name_their_parameter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    large = {"segmenter.encoder": "resnet18", "segmenter.options": {}}
    one = {"train.batch_size": 1, "segmenter.arch": "deeplabv3"}
    prepare_folder(tmp_path, large | one)
    run_until("encoder")
    result = run_stage("train")
    assert result.exit_code == 2, result.output
    assert "error: params.yaml: train.batch_size is 1" in result.stderr
    small = {"views.crop": [32, 32], "views.local_window": [32, 32], "distillation.batch_size": 1}
    write_params(tmp_path, large | small | {"segmenter.encoder_weights": "clip"})
    result = run_stage("encoder")
    assert result.exit_code == 2, result.output
    assert "error: params.yaml: distillation.batch_size is 1" in result.stderr
