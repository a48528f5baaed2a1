"""The last upsampling, from the network's logits to the input's size: ours, align_corners False."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from pipeline.deploy.onnx import write_onnx
from pipeline.segmenter.inference import predict_logits
from pipeline.segmenter.network import build_segmenter
from pipeline.segmenter.saved import load_segmenter, save_segmenter

SMALL = {
    "deeplabv3": {"encoder_output_stride": 8, "decoder_channels": 16},
    "dpt": {
        "dynamic_img_size": True,
        "decoder_intermediate_channels": [8, 8, 8, 8],
        "decoder_fusion_channels": 8,
    },
}
COARSE = sorted(set(smp.MODEL_ARCHITECTURES_MAPPING) - {"unet", "unetplusplus", "manet", "linknet"})


def built(arch: str, **changes: object) -> nn.Module:
    torch.manual_seed(3)
    encoder = "tu-vit_tiny_patch16_224" if arch == "dpt" else "resnet18"
    values = {"num_classes": 3, "options": SMALL.get(arch, {}), "text": None} | changes
    model = build_segmenter(arch=arch, encoder=encoder, **values)
    with torch.no_grad():
        model.train()(torch.randn(2, 3, 128, 128))  # norms that have seen data
    return model.eval()


def save(
    directory: Path,
    model: nn.Module,
    mean: tuple[float, ...] = (0.5,) * 3,
    std: tuple[float, ...] = (0.5,) * 3,
) -> None:
    save_segmenter(
        directory,
        model,
        classes=["a", "b", "c"],
        palette=np.zeros((3, 3), np.uint8),
        mean=mean,
        std=std,
        base_size=(128, 160),
        extra={},
    )


def shares(length: int, cells: int) -> Tensor:
    """How much each cell counts in each pixel, ``[length, cells]``: centres at half a pixel."""
    weights = torch.zeros(length, cells)
    for pixel in range(length):
        place = max(0.0, (pixel + 0.5) * cells / length - 0.5)
        first = int(place)
        weights[pixel, first] += 1 - (place - first)
        weights[pixel, min(first + 1, cells - 1)] += place - first
    return weights


def by_hand(small: Tensor, size: tuple[int, int]) -> Tensor:
    """The authors' ``F.interpolate(..., align_corners=False)``, pixel for pixel."""
    rows, columns = (shares(*pair) for pair in zip(size, small.shape[2:], strict=True))
    return rows @ small @ columns.T


@pytest.mark.parametrize("arch", COARSE)
@torch.no_grad()
def test_logits_are_upsampled_with_align_corners_false_everywhere(arch, tmp_path):
    model = built(arch)
    save(tmp_path, model)
    plain = smp.from_pretrained(str(tmp_path))
    if arch == "dpt":  # what its card says
        assert "upsampling_factor = 1" in (tmp_path / "README.md").read_text()
        plain.segmentation_head.upsampling_factor = 1
    else:
        assert json.loads((tmp_path / "config.json").read_text())["upsampling"] == 1
    loaded = load_segmenter(tmp_path)
    images = torch.randn(1, 3, 128, 160)
    small, size = plain(images), tuple(images.shape[-2:])
    assert small.shape[-1] < images.shape[-1]
    wanted = by_hand(small, size)
    for found in (model, model.train().eval(), loaded.model):
        torch.testing.assert_close(found(images), wanted, rtol=1e-4, atol=1e-4)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (128, 160, 3), np.uint8))
    pixels = torch.from_numpy(np.array(photo)).permute(2, 0, 1)[None] / 127.5 - 1
    wanted = by_hand(plain(pixels), (128, 160))[0]
    torch.testing.assert_close(
        predict_logits(loaded, [photo], (128, 160))[0], wanted, rtol=1e-4, atol=1e-4
    )


@torch.no_grad()
def test_the_onnx_file_normalises_and_upsamples_as_the_card_says(tmp_path):
    save(tmp_path / "segmenter", built("deeplabv3"), mean=(0.4, 0.5, 0.6), std=(0.1, 0.2, 0.3))
    card = " ".join((tmp_path / "segmenter/README.md").read_text().split())
    assert "less `mean` [0.4, 0.5, 0.6], divided by `std` [0.1, 0.2, 0.3]" in card
    write_onnx(tmp_path / "model.onnx", load_segmenter(tmp_path / "segmenter"))
    photos = np.random.default_rng(0).integers(0, 255, (1, 32, 64, 3), np.uint8)
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    found = session.run(None, {"photos": photos})[0]
    plain = smp.from_pretrained(str(tmp_path / "segmenter"))
    mean, std = (torch.tensor(each)[:, None, None] for each in ((0.4, 0.5, 0.6), (0.1, 0.2, 0.3)))
    small = plain((torch.from_numpy(photos).permute(0, 3, 1, 2) / 255 - mean) / std)
    assert small.shape[-1] < 64
    torch.testing.assert_close(
        torch.from_numpy(found), by_hand(small, (32, 64)), rtol=1e-4, atol=1e-4
    )


@torch.no_grad()
def test_networks_that_answer_at_full_size_give_what_they_gave():
    model = built("unet", options={"decoder_channels": [16, 16, 8, 8, 8]})
    images = torch.randn(1, 3, 64, 96)
    features = model.decoder(model.encoder(images))
    assert torch.equal(model(images), model.segmentation_head(features))


@pytest.mark.parametrize("arch", ["deeplabv3", "dpt"])
@torch.no_grad()
def test_segmenters_saved_with_smp_s_own_upsampling_predict_as_they_did(arch, tmp_path):
    save(tmp_path, built(arch))
    config, about = (
        json.loads((tmp_path / name).read_text()) for name in ("config.json", "carb.json")
    )
    if arch != "dpt":
        (tmp_path / "config.json").write_text(json.dumps(config | {"upsampling": 8}))
    del about["align_corners"]  # as it was written before
    (tmp_path / "carb.json").write_text(json.dumps(about))
    images = torch.randn(1, 3, 64, 96)
    plain = smp.from_pretrained(str(tmp_path))
    wanted = plain(images)
    torch.testing.assert_close(load_segmenter(tmp_path).model(images), wanted)
    factor = 2 if arch == "dpt" else 8
    conv = plain.segmentation_head.head if arch == "dpt" else plain.segmentation_head[0]
    found = []
    conv.register_forward_hook(lambda module, given, small: found.append(small))
    plain(images)
    old = F.interpolate(found[0], scale_factor=factor, mode="bilinear", align_corners=True)
    torch.testing.assert_close(wanted, old)
