"""Weights from the hub: downloaded once, never as pickles, and refused in seconds offline."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import open_clip
import pytest
import segmentation_models_pytorch as smp
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from pipeline.clip.dense import load_clip
from pipeline.segmenter.encoder import imagenet_encoder
from pipeline.system import hub
from tests.helpers import clip_folder
from tests.helpers.fake_hub import fake_hub

OPEN_CLIP_FILE = "open_clip_model.safetensors"


class Hub(NamedTuple):
    """A hub on this machine: its folder, and what was asked of it."""

    folder: Path
    asked: list[str]

    def put(self, repo: str, weights: dict[str, torch.Tensor], name: str) -> None:
        (self.folder / repo).mkdir(parents=True)
        save_file(weights, self.folder / repo / name)


def use_endpoint(monkeypatch: pytest.MonkeyPatch, endpoint: str, cache: Path) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


@pytest.fixture
def local_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with fake_hub(tmp_path / "hub") as (endpoint, asked):
        use_endpoint(monkeypatch, endpoint, tmp_path / "cache")
        yield Hub(tmp_path / "hub", asked)


@pytest.fixture
def tagged_clip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, torch.Tensor]:
    """Makes 'Tiny-16' with tag 'lab' a model of open_clip's registry; returns its weights."""
    config = clip_folder.model_config(clip_folder.VIT)
    (tmp_path / "Tiny-16.json").write_text(json.dumps(config))
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [])
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {})
    open_clip.add_model_config(tmp_path / "Tiny-16.json")
    tag = {"hf_hub": "lab/tiny/", "mean": clip_folder.MEAN, "std": clip_folder.STD}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny-16", {"lab": tag})
    return clip_folder.random_weights(config)


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


def test_weights_that_the_hub_has_only_as_a_pickle_are_refused_and_not_downloaded(
    local_hub: Hub, tagged_clip: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    for repo, name in (
        ("lab/tiny", "open_clip_pytorch_model.bin"),
        ("timm/regnetx_002.pycls_in1k", "pytorch_model.bin"),
    ):
        (local_hub.folder / repo).mkdir(parents=True)
        torch.save(tagged_clip, local_hub.folder / repo / name)
    for parameter, load in (
        ("clip.model", lambda: load_clip("Tiny-16", "lab")),
        ("segmenter.encoder_weights", lambda: imagenet_encoder("tu-regnetx_002")),
    ):
        refused = rf"{parameter}: the hub has no \S+\.safetensors, and .* \(pickles\) are not read"
        with pytest.raises(ValueError, match=refused):
            load()
    assert not [name for name in local_hub.asked if name.endswith(".bin")]
    url = {"url": "https://example.com/tiny.pt"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny-16", {"lab": url})
    with pytest.raises(ValueError, match=r"clip\.pretrained: open_clip has 'lab' .* as a pickle"):
        load_clip("Tiny-16", "lab")
    with pytest.raises(ValueError, match=r"no ImageNet weights of 'tu-vit_huge\w+' as safetensors"):
        imagenet_encoder("tu-vit_huge_patch16_gap_448")  # timm 1.0: a URL of a .pth file only


@pytest.mark.parametrize(
    ("encoder", "repo", "arch"),
    [
        ("mobilenet_v2", "smp-hub/mobilenet_v2.imagenet", "deeplabv3"),
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
