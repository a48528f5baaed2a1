"""Mean and deviation of encoders that were trained with others than ImageNet's."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import segmentation_models_pytorch as smp
import torch
from PIL import Image

from pipeline.config.params import NormalisationParams, load_params
from pipeline.deploy.onnx import write_onnx
from pipeline.distillation.distil import _check_normalisation
from pipeline.segmenter.encoder import trained_with
from pipeline.segmenter.inference import predict_logits
from pipeline.segmenter.saved import load_segmenter
from pipeline.training.augment import NORMALISATIONS, normalisation_of, normalise
from tests.helpers.import_closure import ROOT
from tests.helpers.tiny_run import prepare_folder, run_stage, run_until, write_params

OWN = {"mean": [0.4, 0.5, 0.6], "std": [0.1, 0.2, 0.3]}


def test_bytes_become_what_each_kind_of_weights_knows():
    pixel = torch.tensor([10, 127, 255], dtype=torch.uint8)[None, :, None, None]
    by_hand = {
        "imagenet": [(10 / 255 - 0.485) / 0.229, (127 / 255 - 0.456) / 0.224, (1 - 0.406) / 0.225],
        "half": [10 / 127.5 - 1, 127 / 127.5 - 1, 1.0],
        "lite": [(10 - 127) / 128, 0.0, (255 - 127) / 128],
    }
    assert by_hand.keys() == NORMALISATIONS.keys()
    for name, wanted in by_hand.items():
        found = normalise(pixel, normalisation_of(name))[0, :, 0, 0]
        torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-5, atol=1e-6)
    own = normalise(pixel, normalisation_of(NormalisationParams(**OWN)))[0, :, 0, 0]
    wanted = torch.tensor([(10 / 255 - 0.4) / 0.1, (127 / 255 - 0.5) / 0.2, (1 - 0.6) / 0.3])
    torch.testing.assert_close(own, wanted)


@pytest.mark.parametrize("asked", ["lite", OWN])
def test_the_segmenter_its_card_and_its_onnx_know_their_own(asked, tmp_path, monkeypatch):
    prepare_folder(tmp_path, {"segmenter.normalisation": asked, "train.steps": 2})
    monkeypatch.chdir(tmp_path)
    run_until("train")
    mean, std = normalisation_of(load_params(Path("params.yaml")).segmenter.normalisation)
    about = json.loads(Path("models/segmenter/carb.json").read_text())
    assert (about["mean"], about["std"]) == (list(mean), list(std))
    card = " ".join(Path("models/segmenter/README.md").read_text().split())
    assert f"less `mean` {list(mean)}, divided by `std` {list(std)}" in card
    segmenter = load_segmenter("models/segmenter")
    noise = np.random.default_rng(0).integers(0, 256, (64, 128, 3), np.uint8)
    pixels = torch.from_numpy(noise).permute(2, 0, 1)[None].double() / 255
    by_hand = (pixels - torch.tensor(mean)[:, None, None]) / torch.tensor(std)[:, None, None]
    with torch.no_grad():
        wanted = smp.from_pretrained("models/segmenter").eval()(by_hand.float())[0]
    found = predict_logits(segmenter, Image.fromarray(noise), (64, 128))
    torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3)
    write_onnx(Path("model.onnx"), segmenter)
    logits = onnxruntime.InferenceSession("model.onnx").run(None, {"photos": noise[None]})[0]
    torch.testing.assert_close(torch.from_numpy(logits[0]), wanted, rtol=1e-3, atol=1e-3)

    # Training saw the photos so: from the same start another normalisation learns other weights.
    write_params(tmp_path, {"train.steps": 2})
    assert run_stage("train", "--out", "other", "--curves", "curves").exit_code == 0
    first, other = (
        Path(name, "model.safetensors").read_bytes() for name in ("models/segmenter", "other")
    )
    assert first != other


def test_weights_that_know_another_normalisation_are_named(caplog):
    segmenter = load_params(ROOT / "params.yaml").segmenter
    assert trained_with("tu-regnetx_002") == tuple(NORMALISATIONS["imagenet"])
    assert trained_with("resnet18") is None
    for encoder, asked, says in [
        ("tu-regnetx_002", "imagenet", False),
        ("tu-tf_efficientnet_lite0", "lite", False),  # timm says 0.5: the same to a 256th
        ("tu-vit_tiny_patch16_224", "imagenet", True),
    ]:
        caplog.clear()
        changes = {"encoder": encoder, "normalisation": asked}
        _check_normalisation(segmenter.model_copy(update=changes))
        assert ("segmenter.normalisation: the ImageNet weights" in caplog.text) is says


@pytest.mark.parametrize(
    "value", ["Imagenet", {"mean": [0.5, 0.5, 0.5]}, {**OWN, "std": [0, 1, 1]}, [0.5, 0.5, 0.5]]
)
def test_a_wrong_value_is_told_in_one_sentence(tmp_path, value):
    write_params(tmp_path, {"segmenter.normalisation": value})
    message = (
        r"^params.yaml: segmenter.normalisation must be 'imagenet', 'half' or 'lite', or the lines "
        r"mean: a list of 3 values.* and std: a list of 3 values.*, got .*$"
    )
    with pytest.raises(ValueError, match=message):
        load_params(tmp_path / "params.yaml")
