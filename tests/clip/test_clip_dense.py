"""DenseClip: features, logits and text embeddings; which models are loaded and which refused."""

import json
from pathlib import Path

import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from pipeline.clip.dense import DenseClip, load_clip
from tests.helpers import clip_folder


def noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize(("size", "grid"), [((23, 24), (1, 2)), ((3, 71), (1, 4))])
def test_any_size_is_stretched_to_the_nearest_whole_patches(
    vit: DenseClip, size: tuple[int, int], grid: tuple[int, int]
) -> None:
    images = noise(1, 3, *size)
    whole = [16 * side for side in grid]
    stretched = F.interpolate(images, size=whole, mode="bicubic", align_corners=False)
    features = vit.patch_features(images)
    assert features.shape == (1, 24, *grid)
    torch.testing.assert_close(features, vit.patch_features(stretched))


def test_logits_are_cosines_in_float32_even_under_autocast(vit: DenseClip) -> None:
    images, words, templates = noise(1, 3, 64, 128), [["car"], ["sky"]], ["a photo of a {}."]
    exact_text = vit.embed_text(words, templates)
    exact = vit.patch_logits(images, exact_text)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        features, text = vit.patch_features(images), vit.embed_text(words, templates)
        logits = vit.patch_logits(images, text)
    assert features.dtype == text.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(features.norm(dim=1), torch.ones_like(features[:, 0]))
    torch.testing.assert_close(text, exact_text, rtol=0, atol=0)
    torch.testing.assert_close(logits, exact, rtol=0, atol=0.03)
    by_hand = torch.einsum("bdhw,cd->bchw", features, text)
    torch.testing.assert_close(logits, by_hand, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (32, 64)], ids=["trained size", "another size"])
def test_a_window_share_mixes_in_the_models_embedding_of_the_whole_window(
    vit: DenseClip, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    images = noise(2, 3, *size)
    own = vit.patch_features(images)
    monkeypatch.setattr(vit, "window_share", 0.25)
    seen = (
        images
        if size == vit.image_size
        else F.interpolate(images, vit.image_size, mode="bicubic", antialias=True)
    )
    pooled = F.normalize(vit.model.encode_image(seen), dim=1)
    wanted = 0.75 * own + 0.25 * pooled[:, :, None, None]
    torch.testing.assert_close(vit.patch_features(images), wanted)


def test_text_is_the_normalised_mean_over_words_and_templates(vit: DenseClip) -> None:
    templates = ["a photo of a {}.", "there is a {} in the scene."]
    words = [["car"], ["person", "pedestrian"], ["tree", "tree"]]
    text = vit.embed_text(words, templates)
    tokenizer = open_clip.SimpleTokenizer(context_length=77)
    for row, names in zip(text, words, strict=True):
        prompts = [template.format(name) for name in names for template in templates]
        rows = [vit.model.encode_text(tokenizer([prompt]))[0] for prompt in prompts]
        mean = sum(one / one.norm() for one in rows) / len(rows)
        torch.testing.assert_close(row, mean / mean.norm(), rtol=0, atol=1e-6)


def test_a_loaded_clip_is_frozen_and_has_the_settings_of_its_folder(resnet: DenseClip) -> None:
    before = resnet.weights_digest()
    resnet.train()
    logits = resnet.patch_logits(noise(4, 3, 64, 64), resnet.embed_text([["car"]], ["a {}."]))
    assert not any(module.training for module in resnet.modules())
    assert not any(parameter.requires_grad for parameter in resnet.parameters())
    assert not logits.requires_grad
    assert resnet.weights_digest() == before
    assert (resnet.mean, resnet.std) == ((0.1, 0.2, 0.3), (0.5, 0.6, 0.7))
    assert (resnet.patch_size, resnet.image_size) == (32, (64, 64))


def test_the_digest_depends_on_weights_and_activation_and_nothing_else(
    vit: DenseClip, tmp_path: Path
) -> None:
    config = clip_folder.model_config(clip_folder.VIT)
    weights = clip_folder.random_weights(config)
    copy = load_clip(clip_folder.write_clip(tmp_path / "copy", config, weights), None)
    assert copy.weights_digest() == vit.weights_digest()
    quick = {**config, "quick_gelu": True}
    changed = load_clip(clip_folder.write_clip(tmp_path / "quick", quick, weights), None)
    weights["visual.ln_post.bias"][0] += 1e-6
    moved = load_clip(clip_folder.write_clip(tmp_path / "moved", config, weights), None)
    assert len({clip.weights_digest() for clip in (vit, changed, moved)}) == 3


def test_an_open_clip_name_takes_a_safetensors_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    ("ViT-B-16", "openai"): r"clip\.model must be 'ViT-B-16-quickgelu' for clip\.pretrained",
    ("ViT-B-16-quickgelu", None): r"clip\.pretrained must name trained weights.*openai.*got None",
    ("ViT-B-16-quickgelu", "openia"): r"clip\.pretrained must name.*openai, dfn2b.*got 'openia'",
    ("ViT-B-16", "weights.pt"): r"clip\.pretrained must name.*a \.safetensors file.*'weights\.pt'",
    ("ViT-B-16", "nowhere.safetensors"): r"clip\.pretrained: 'nowhere\.safetensors'.*found Runtime",
    ("EVA02-B-16", "merged2b_s8b_b131k"): r"EVA02-B-16' has TimmModel with timm_model_name 'eva02",
    ("local-dir:/no/such/folder", None): r"'local-dir:/no/such/folder' must be a folder with open_",
    ("hf-hub:timm/clip", "openai"): r"clip\.pretrained must be null for 'hf-hub:timm/clip', which",
}


@pytest.mark.parametrize(("model", "pretrained"), REFUSED)
def test_a_model_that_cannot_work_is_refused_before_any_download(
    model: str, pretrained: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_network(*args: object, **options: object) -> None:
        pytest.fail("asked the network")

    monkeypatch.setattr("socket.getaddrinfo", no_network)
    with pytest.raises(ValueError, match=REFUSED[model, pretrained]) as caught:
        load_clip(model, pretrained)
    assert str(caught.value).startswith("params.yaml: clip.")
    assert "\n" not in str(caught.value)


CONFIG, WEIGHTS = "open_clip_config.json", "open_clip_model.safetensors"
FOLDERS: dict[str, tuple[dict[str, str | None], str]] = {  # None: no such file
    "no config": ({CONFIG: None}, r"must be a folder with .* found \['open_clip"),
    "no weights": ({WEIGHTS: None}, r"must be a folder with .* found \['open_clip"),
    "broken config": ({CONFIG: "{"}, r"must have a readable open_clip_config\.json.*; repair"),
    "not a model's": (
        {CONFIG: '{"model_cfg": {"embed_dim": 24}}'},
        r"must have a readable open_clip_config\.json.*; repair",
    ),
    "broken weights": ({WEIGHTS: "x"}, "readable set of weights that fit.* found SafetensorError"),
    "other weights": ({}, r"readable set of weights that fit.* found RuntimeError: Error\(s\) in"),
}


@pytest.mark.parametrize("kind", FOLDERS)
def test_a_folder_that_is_incomplete_or_damaged_is_refused(tmp_path: Path, kind: str) -> None:
    files, found = FOLDERS[kind]
    config = clip_folder.model_config(clip_folder.VIT)
    model = clip_folder.write_clip(tmp_path, config, {"visual.proj": torch.zeros(3, 3)})
    (tmp_path / "open_clip_pytorch_model.bin").write_text("a pickle")
    for name, content in files.items():
        (tmp_path / name).unlink() if content is None else (tmp_path / name).write_text(content)
    with pytest.raises(ValueError, match=found):
        load_clip(model, None)


def test_malformed_images_and_prompts_are_refused(vit: DenseClip) -> None:
    good = torch.zeros(1, 3, 64, 64)
    for images in (good[0], torch.zeros(1, 4, 64, 64), good.byte()):
        with pytest.raises(ValueError, match=r"images must be \[B, 3, H, W\] float, CLIP-norm"):
            vit.patch_features(images)
    for words, templates in (
        ([], ["a {}."]),
        ([["car"], []], ["a {}."]),
        ([["car"]], []),
        ([["car"]], ["a car."]),
    ):
        with pytest.raises(ValueError, match=r"each class needs a word and each template a \{\}"):
            vit.embed_text(words, templates)
