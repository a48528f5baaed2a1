"""Encoder weights from a file or from ImageNet."""

from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from pipeline.config.params import Params
from pipeline.distillation.distil import _check_normalisation
from pipeline.segmenter.encoder import (
    check_encoder,
    load_encoder,
    save_encoder,
    trained_with,
)
from pipeline.training.augment import NORMALISATIONS


def unet(encoder: str, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return smp.Unet(encoder, encoder_weights=None, decoder_channels=(8, 8, 8, 8, 8))


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_encoder(unet("resnet18", 0).encoder, path, half=False)
    return path


def test_an_encoder_is_restored_from_its_file(tmp_path):
    one, other = unet("tu-regnetx_002", 0), unet("tu-regnetx_002", 1)
    save_encoder(one.encoder, tmp_path / "w.safetensors", half=False)
    load_encoder(other, tmp_path / "w.safetensors")
    for name, value in one.encoder.state_dict().items():
        assert torch.equal(other.encoder.state_dict()[name], value)


def test_half_rounds_matrices_and_keeps_statistics_beyond_its_range(tmp_path):
    one, other = unet("resnet18", 0), unet("resnet18", 1)
    one.encoder.bn1.running_var.fill_(1e6)
    save_encoder(one.encoder, tmp_path / "w.safetensors", half=True)
    stored = load_file(tmp_path / "w.safetensors")
    assert stored["conv1.weight"].dtype == torch.float16
    load_encoder(other, tmp_path / "w.safetensors")
    assert torch.equal(other.encoder.bn1.running_var, one.encoder.bn1.running_var)
    assert other.encoder.conv1.weight.dtype == torch.float32
    torch.testing.assert_close(
        other.encoder.conv1.weight, one.encoder.conv1.weight, rtol=1e-3, atol=1e-6
    )


def test_a_flipped_bit_of_our_own_weights_is_reported(weights, tmp_path):
    content = bytearray(weights.read_bytes())
    content[-3] ^= 1
    (tmp_path / "spoilt").write_bytes(content)
    with pytest.raises(
        ValueError, match=r"spoilt cannot be read .*not those that were written.*make"
    ):
        load_encoder(unet("resnet18", 1), tmp_path / "spoilt")


def test_weights_of_another_encoder_are_refused_by_name(weights):
    with pytest.raises(ValueError, match=r"segmenter\.encoder_weights: .* missing .* unknown"):
        load_encoder(unet("tu-regnetx_002", 0), weights)


def test_a_tensor_of_another_shape_is_refused_and_nothing_is_loaded(weights, tmp_path):
    state = load_file(weights)
    state["conv1.weight"] = state["conv1.weight"][:, :1].contiguous()
    save_file(state, tmp_path / "grey.safetensors")
    model = unet("resnet18", 1)
    before = model.encoder.layer1[0].conv1.weight.clone()
    shapes = r"1 of another shape \(conv1\.weight \[64, 1, 7, 7\] instead of \[64, 3, 7, 7\]\)"
    with pytest.raises(ValueError, match=shapes):
        load_encoder(model, tmp_path / "grey.safetensors")
    assert torch.equal(model.encoder.layer1[0].conv1.weight, before)


def test_a_missing_and_an_unreadable_file_are_named(tmp_path):
    torch.save({"conv1.weight": torch.ones(2)}, tmp_path / "pickled.pt")
    model = unet("resnet18", 0)
    for name in ("absent.safetensors", "pickled.pt", "."):
        with pytest.raises(ValueError, match=r"segmenter\.encoder_weights: .*cannot be read"):
            load_encoder(model, tmp_path / name)


def test_known_names_pass_and_unknown_ones_are_corrected():
    for name in ("resnet18", "mit_b0", "tu-regnetx_002", "tu-resnet18.a1_in1k"):
        check_encoder(name)
    with pytest.raises(ValueError, match=r"did you mean .*resnet50"):
        check_encoder("resnet_50")


@pytest.mark.parametrize(
    ("encoder", "normalisation", "warns"),
    [
        ("tu-regnetx_002", "imagenet", False),
        ("tu-tf_efficientnet_lite0", "lite", False),  # timm says 0.5: the same to a 256th
        ("tu-vit_tiny_patch16_224", "imagenet", True),
    ],
)
def test_weights_trained_with_another_normalisation_are_named(
    params: Params, caplog, encoder, normalisation, warns
):
    assert trained_with("tu-regnetx_002") == tuple(NORMALISATIONS["imagenet"])
    assert trained_with("resnet18") is None
    changes = {"encoder": encoder, "normalisation": normalisation}
    _check_normalisation(params.segmenter.model_copy(update=changes))
    assert ("segmenter.normalisation: the ImageNet weights" in caplog.text) is warns
