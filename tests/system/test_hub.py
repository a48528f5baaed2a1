"""Weights from the hub: downloaded once, never as pickles, and refused in seconds offline."""

import socket
import time
from pathlib import Path

import pytest
import segmentation_models_pytorch as smp
import torch
from huggingface_hub import constants

from pipeline.clip.dense import load_clip
from pipeline.segmenter.encoder import imagenet_encoder
from pipeline.system import hub
from tests.helpers import clip_folder
from tests.helpers.fake_hub import Hub, use_endpoint

OPEN_CLIP_FILE = "open_clip_model.safetensors"


def test_a_clip_of_the_registry_is_downloaded_once_and_then_needs_no_request(
    local_hub: Hub, tagged_clip: dict[str, torch.Tensor]
) -> None:
    local_hub.put("lab/tiny", tagged_clip, OPEN_CLIP_FILE)
    first = load_clip("Tiny-16", "lab")
    assert set(local_hub.asked) == {f"lab/tiny/{OPEN_CLIP_FILE}"}
    assert torch.equal(first.model.visual.proj, tagged_clip["visual.proj"])
    assert (first.mean, first.std) == (clip_folder.MEAN, clip_folder.STD)
    local_hub.asked.clear()
    assert load_clip("Tiny-16", "lab").weights_digest() == first.weights_digest()
    assert local_hub.asked == []


def test_a_clip_of_the_hub_is_that_of_its_folder(local_hub: Hub, tmp_path: Path) -> None:
    config = clip_folder.model_config(clip_folder.VIT)
    folder = local_hub.folder / "lab/tiny"
    local = load_clip(
        clip_folder.write_clip(folder, config, clip_folder.random_weights(config)), None
    )
    downloaded = load_clip("hf-hub:lab/tiny", None)
    assert downloaded.weights_digest() == local.weights_digest()
    assert downloaded.name == "hf-hub:lab/tiny"
    local_hub.asked.clear()
    load_clip("hf-hub:lab/tiny", None)
    assert local_hub.asked == []


@pytest.mark.parametrize(
    ("encoder", "repo", "arch"),
    [
        ("mobilenet_v2", "smp-hub/mobilenet_v2.imagenet", "fpn"),
        ("tu-regnetx_002", "timm/regnetx_002.pycls_in1k", "unet"),
    ],
)
def test_downloaded_imagenet_weights_are_those_that_smp_loads(
    local_hub: Hub, monkeypatch: pytest.MonkeyPatch, encoder: str, repo: str, arch: str
) -> None:
    torch.manual_seed(1)
    weights = smp.Unet(encoder, encoder_weights=None).encoder.state_dict()
    # timm's checkpoints do not have the prefix of smp's wrapper.
    plain = {name.removeprefix("model."): value for name, value in weights.items()}
    local_hub.put(repo, plain, "model.safetensors")
    (local_hub.folder / repo / "config.json").write_text("{}")
    ours = imagenet_encoder(encoder, arch=arch).state_dict()
    named = True if encoder.startswith("tu-") else "imagenet"
    theirs = smp.create_model(arch, encoder, encoder_weights=named).encoder.state_dict()
    assert ours.keys() == theirs.keys() == weights.keys()
    for name, value in ours.items():
        assert torch.equal(value, weights[name]), name
        assert torch.equal(value, theirs[name]), name


def test_without_a_connection_one_sentence_names_the_file_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:  # as a firewall that drops packets
        use_endpoint(monkeypatch, f"http://127.0.0.1:{silent.getsockname()[1]}", tmp_path)
        monkeypatch.setattr(hub, "REACH_S", 0.2)
        start = time.monotonic()
        with pytest.raises(ValueError, match=r"clip\.model: .*run `carb fetch`") as caught:
            load_clip("ViT-B-16-quickgelu", "openai")
        assert time.monotonic() - start < 5
    assert "timm/vit_base_patch16_clip_224.openai/open_clip_model.safetensors" in str(caught.value)
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match=r"encoder_weights: smp-hub/resnet18.*Connection refused"):
        imagenet_encoder("resnet18")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ValueError, match=r"downloaded \(HF_HUB_OFFLINE is set\); run `carb fetch`"):
        imagenet_encoder("tu-regnetx_002")
