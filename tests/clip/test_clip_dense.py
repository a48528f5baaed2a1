"""DenseClip: slow versions written here, laws, and the message of each refusal."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from pipeline.clip.dense import DenseClip, load_clip
from tests.helpers import clip_folder


@pytest.fixture(scope="module")
def vit(tmp_path_factory: pytest.TempPathFactory) -> DenseClip:
    return clip_folder.random_clip(tmp_path_factory.mktemp("vit"), clip_folder.VIT)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory: pytest.TempPathFactory) -> DenseClip:
    return clip_folder.random_clip(tmp_path_factory.mktemp("resnet"), clip_folder.RESNET)


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


VIT_KINDS: dict[str, dict[str, Any]] = {
    "class token": {},
    "average": {"pool_type": "avg"},
    "layer scale": {"ls_init_value": 0.3},
    "one layer": {"layers": 1},
    "clipa": {"pool_type": "avg", "no_ln_pre": True, "final_ln_after_pool": True},
    "patch dropout": {"patch_dropout": 0.5},
    "query and key norm": {"qk_norm": True},
    "not square": {"image_size": [32, 80]},
}


@pytest.mark.parametrize("kind", VIT_KINDS)
def test_vit_features_are_the_value_path_written_out(tmp_path, kind):
    clip = clip_folder.random_clip(tmp_path, {**clip_folder.VIT, **VIT_KINDS[kind]})
    visual = clip.model.visual
    images = noise(2, 3, *clip.image_size)
    entered: list[torch.Tensor] = []
    last = visual.transformer.resblocks[-1]
    hook = last.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    visual(images)
    hook.remove()
    x = entered[0]  # [B, 1 + h * w, width] of open_clip's own forward pass
    _, _, w_value = last.attn.in_proj_weight.chunk(3)
    _, _, b_value = last.attn.in_proj_bias.chunk(3)
    scale_1, scale_2 = (getattr(ls, "gamma", 1.0) for ls in (last.ls_1, last.ls_2))
    x = x + scale_1 * last.attn.out_proj(last.ln_1(x) @ w_value.T + b_value)
    x = x + scale_2 * last.mlp(last.ln_2(x))
    expected = F.normalize(visual.ln_post(x)[:, 1:] @ visual.proj, dim=-1)
    rows, columns = (side // 16 for side in clip.image_size)
    features = clip.patch_features(images)
    assert features.shape == (2, 24, rows, columns)
    torch.testing.assert_close(features.flatten(2).transpose(1, 2), expected, rtol=0, atol=1e-5)


def test_resnet_logits_are_its_two_projections_cell_by_cell(resnet):
    images, text = noise(2, 3, 64, 96), noise(5, 24)
    visual, pool = resnet.model.visual, resnet.model.visual.attnpool
    cells = visual.stem(images)
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        cells = layer(cells)
    logits = resnet.patch_logits(images, text)
    assert logits.shape == (2, 5, 2, 3)
    for image, row, column in np.ndindex(2, 2, 3):
        value = pool.v_proj.weight @ cells[image, :, row, column] + pool.v_proj.bias
        feature = pool.c_proj.weight @ value + pool.c_proj.bias
        cosines = text @ feature / (feature.norm() * text.norm(dim=1))
        torch.testing.assert_close(logits[image, :, row, column], cosines, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("size", "grid"),
    [((64, 64), (4, 4)), ((23, 24), (1, 2)), ((3, 71), (1, 4)), ((200, 72), (13, 5))],
)
def test_any_size_is_stretched_to_the_nearest_whole_patches(vit, size, grid):
    images = noise(1, 3, *size)
    whole = [16 * side for side in grid]
    stretched = F.interpolate(images, size=whole, mode="bicubic", align_corners=False)
    features = vit.patch_features(images)
    assert features.shape == (1, 24, *grid)
    torch.testing.assert_close(features, vit.patch_features(stretched))


@pytest.mark.parametrize("which", ["vit", "resnet"])
def test_features_and_text_have_norm_one_and_are_float32_under_autocast(request, which):
    clip = request.getfixturevalue(which)
    images, words, templates = noise(1, 3, 64, 128), [["car"], ["sky"]], ["a photo of a {}."]
    exact_text = clip.embed_text(words, templates)
    exact = clip.patch_logits(images, exact_text)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, text = clip.patch_features(images), clip.embed_text(words, templates)
        logits = clip.patch_logits(images, text)
    assert features.dtype == text.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=1), torch.ones_like(features[:, 0]))
    torch.testing.assert_close(text, exact_text, rtol=0, atol=0)
    torch.testing.assert_close(logits, exact, rtol=0, atol=0.03)
    by_hand = torch.einsum("bdhw,cd->bchw", features, text)
    torch.testing.assert_close(logits, by_hand, rtol=0, atol=1e-6)


def test_text_is_the_normalised_mean_over_words_and_templates(vit):
    templates = ["a photo of a {}.", "there is a {} in the scene.", "the {}."]
    words = [["car"], ["person", "pedestrian"], ["tree", "tree"]]
    text = vit.embed_text(words, templates)
    tokenizer = open_clip.SimpleTokenizer(context_length=77)
    for row, names in zip(text, words, strict=True):
        prompts = [template.format(name) for name in names for template in templates]
        rows = [vit.model.encode_text(tokenizer([prompt]))[0] for prompt in prompts]
        mean = sum(one / one.norm() for one in rows) / len(rows)
        torch.testing.assert_close(row, mean / mean.norm(), rtol=0, atol=1e-6)


def test_a_loaded_clip_is_frozen_and_stays_so(resnet):
    before = resnet.weights_digest()
    resnet.train()
    logits = resnet.patch_logits(noise(4, 3, 64, 64), resnet.embed_text([["car"]], ["a {}."]))
    assert not any(module.training for module in resnet.modules())
    assert not any(parameter.requires_grad for parameter in resnet.parameters())
    assert not logits.requires_grad
    assert resnet.weights_digest() == before


def test_a_loaded_clip_says_what_images_it_needs(vit, resnet):
    assert (vit.mean, vit.std) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    assert (vit.patch_size, vit.image_size) == (16, (64, 64))
    assert (resnet.patch_size, resnet.image_size) == (32, (64, 64))
    assert vit.name.startswith("local-dir:")


def test_the_digest_knows_weights_and_activation_and_nothing_else(vit, tmp_path):
    config = clip_folder.model_config(clip_folder.VIT)
    weights = clip_folder.random_weights(config)
    copy = load_clip(clip_folder.write_clip(tmp_path / "copy", config, weights), None)
    assert copy.weights_digest() == vit.weights_digest()
    quick = {**config, "quick_gelu": True}
    changed = load_clip(clip_folder.write_clip(tmp_path / "quick", quick, weights), None)
    weights["visual.ln_post.bias"][0] += 1e-6
    moved = load_clip(clip_folder.write_clip(tmp_path / "moved", config, weights), None)
    assert len({clip.weights_digest() for clip in (vit, changed, moved)}) == 3


def test_an_open_clip_name_takes_a_safetensors_file(tmp_path, monkeypatch):
    config = clip_folder.model_config(clip_folder.VIT)
    weights = clip_folder.random_weights(config)
    (tmp_path / "Tiny-16.json").write_text(json.dumps(config))
    save_file(weights, tmp_path / "tiny.safetensors")
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIG_PATHS", [])
    monkeypatch.setattr(open_clip.factory, "_MODEL_CONFIGS", {})
    open_clip.add_model_config(tmp_path / "Tiny-16.json")
    clip = load_clip("Tiny-16", str(tmp_path / "tiny.safetensors"))
    assert torch.equal(clip.model.visual.proj, weights["visual.proj"])
    assert clip.mean == open_clip.OPENAI_DATASET_MEAN


REFUSED = {
    ("ViT-B16-quickgelu", "openai"): r"clip\.model must be an open_clip name.*ViT-B-16-quickgelu",
    ("ViT-B/16", "openai"): r"clip\.model must be an open_clip name.*ViT-B-16",
    ("ViT-B-16", "openai"): r"clip\.model must be 'ViT-B-16-quickgelu' for clip\.pretrained",
    ("RN50", "openai"): r"clip\.model must be 'RN50-quickgelu' for clip\.pretrained 'openai'",
    ("ViT-B-16", "metaclip-400m"): r"must be 'ViT-B-16-quickgelu'.*trained with QuickGELU",
    ("ViT-B-16-quickgelu", None): r"clip\.pretrained must name trained weights.*openai.*got None",
    ("ViT-B-16-quickgelu", ""): r"clip\.pretrained must name trained weights.*got ''",
    ("ViT-B-16-quickgelu", "openia"): r"clip\.pretrained must name.*openai, dfn2b.*got 'openia'",
    ("ViT-B-16", "weights.pt"): r"clip\.pretrained must name.*a \.safetensors file.*'weights\.pt'",
    ("ViT-B-16", "nowhere.safetensors"): r"clip\.pretrained: 'nowhere\.safetensors'.*found Runtime",
    ("EVA02-B-16", "merged2b_s8b_b131k"): r"EVA02-B-16' has TimmModel with timm_model_name 'eva02",
    ("local-dir:/no/such/folder", None): r"'local-dir:/no/such/folder' must be a folder with open_",
    ("hf-hub:timm/clip", "openai"): r"clip\.pretrained must be null for 'hf-hub:timm/clip', which",
}


@pytest.mark.parametrize(("model", "pretrained"), REFUSED)
def test_a_model_that_cannot_work_is_refused_before_any_download(model, pretrained, monkeypatch):
    def no_network(*args: object, **options: object) -> None:
        pytest.fail("asked the network")

    monkeypatch.setattr("socket.getaddrinfo", no_network)
    with pytest.raises(ValueError, match=REFUSED[model, pretrained]) as caught:
        load_clip(model, pretrained)
    assert str(caught.value).startswith("params.yaml: clip.")
    assert "\n" not in str(caught.value)


def folder_with(tmp_path: Path, files: dict[str, str], **vision: Any) -> str:
    """A folder with a good config and no good weights, then with these files."""
    config = clip_folder.model_config({**clip_folder.VIT, **vision})
    model = clip_folder.write_clip(tmp_path, config, {"visual.proj": torch.zeros(3, 3)})
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    return model


@pytest.mark.parametrize("missing", ["open_clip_config.json", "open_clip_model.safetensors"])
def test_a_folder_without_config_or_safetensors_is_refused(tmp_path, missing):
    model = folder_with(tmp_path, {"open_clip_pytorch_model.bin": "a pickle"})
    (tmp_path / missing).unlink()
    with pytest.raises(ValueError, match=r"must be a folder with .* found \['open_clip"):
        load_clip(model, None)


@pytest.mark.parametrize("text", ["{", "[]", '{"model_cfg": {"embed_dim": 24}}'])
def test_a_broken_config_is_refused(tmp_path, text):
    model = folder_with(tmp_path, {"open_clip_config.json": text})
    with pytest.raises(ValueError, match=r"must have a readable open_clip_config\.json.*; repair"):
        load_clip(model, None)


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"open_clip_model.safetensors": "not safetensors"}, "SafetensorError"),
        ({}, "RuntimeError: Error(s) in loading state_dict for CLIP:"),
    ],
)
def test_weights_that_cannot_be_read_or_do_not_fit_are_refused(tmp_path, files, found):
    model = folder_with(tmp_path, files)
    with pytest.raises(ValueError, match="must have a readable set of weights that fit") as caught:
        load_clip(model, None)
    assert f"found {found}" in str(caught.value)


@pytest.mark.parametrize(
    "images", [torch.zeros(3, 64, 64), torch.zeros(1, 4, 64, 64), torch.zeros(1, 3, 64, 64).byte()]
)
def test_images_of_another_shape_or_type_are_refused(vit, images):
    with pytest.raises(ValueError, match=r"images must be \[B, 3, H, W\] float, CLIP-normalised"):
        vit.patch_features(images)


@pytest.mark.parametrize(
    ("words", "templates"),
    [([], ["a {}."]), ([["car"], []], ["a {}."]), ([["car"]], []), ([["car"]], ["a car."])],
)
def test_text_without_a_word_or_a_place_for_it_is_refused(vit, words, templates):
    with pytest.raises(ValueError, match=r"each class needs a word and each template a \{\}"):
        vit.embed_text(words, templates)
