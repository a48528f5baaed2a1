"""DenseClip against the authors' own numbers: a tiny ViT, every stored view and text."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from pipeline.clip.dense import DenseClip, as_the_authors, load_clip
from pipeline.clip.prompts import SCENE_TEMPLATES, resolve_templates
from tests.helpers.clip_folder import write_clip

GOLDEN = np.load(Path(__file__).parents[1] / "golden" / "maskclip_vit_tiny.npz")
CONFIG = json.loads(str(GOLDEN["config_json"]))
FEATURE_ATOL, LOGITS_ATOL = 2e-5, 5e-6
TEXTS = {"pos": "text_embeddings_positive", "ens": "text_embeddings_quickgelu"}
# As the weights want it, and literally as the authors' code runs it.
VARIANTS = ("quickgelu_eps1e-5", "gelu_eps1e-6")


def stored(suffix: str) -> list[str]:
    """All results of that kind; "sametok" is the authors' defect, "sametok_interp" the rule."""
    names = [name.removesuffix(suffix) for name in GOLDEN if name.endswith(suffix)]
    return [name for name in names if name.split("/")[1] != "sametok"]


def golden_weights() -> dict[str, torch.Tensor]:
    weights = {name[2:]: torch.from_numpy(GOLDEN[name]) for name in GOLDEN if name[:2] == "w/"}
    tokens = torch.zeros(49408, 64)
    used_ids = weights.pop("token_embedding.used_ids").long()
    tokens[used_ids] = weights.pop("token_embedding.used_rows")
    return {**weights, "token_embedding.weight": tokens}


def golden_config(variant: str) -> dict[str, Any]:
    activation, eps = variant.split("_eps")
    config = {**CONFIG["model_cfg"], "quick_gelu": activation == "quickgelu"}
    norms = {"norm_kwargs": {"eps": float(eps)}}
    return {**config, "vision_cfg": {**config["vision_cfg"], **norms}}


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> dict[str, DenseClip]:
    folder, weights = tmp_path_factory.mktemp("golden"), golden_weights()
    names = {v: write_clip(folder / v, golden_config(v), weights) for v in VARIANTS}
    return {variant: load_clip(name, None) for variant, name in names.items()}


def view(case: str) -> torch.Tensor:
    """What CLIP saw: already normalised, padded with zeros right and below where theirs pads."""
    if case.startswith("local"):
        key = case.removeprefix("local_")
        top, left, _ = (int(value) for value in GOLDEN[f"local/{key}/spec"])
        patch = torch.from_numpy(GOLDEN["image/nonsq"])[:, :, top : top + 64, left : left + 32]
        size = [int(side) for side in GOLDEN[f"local/{key}/resized_size"]]
        image = F.interpolate(patch, size=size, mode="bilinear", align_corners=False)
    else:
        image = torch.from_numpy(GOLDEN[f"image/{case.removesuffix('_interp')}"])
    height, width = image.shape[-2:]
    return F.pad(image, (0, -width % 16, 0, -height % 16))


def label_map(logits: torch.Tensor, size: tuple[int, ...]) -> np.ndarray:
    absent = torch.from_numpy(GOLDEN["img_label"])[:, :, None, None] == 0
    full = F.interpolate(logits, size=size, mode="bilinear", align_corners=False)
    return full.masked_fill(absent, -torch.inf).argmax(dim=1).numpy()


@pytest.mark.parametrize("name", stored("/feat"))
def test_features_are_the_authors_features_normalised(clips, name):
    variant, case = name.split("/")
    features = clips[variant].patch_features(view(case))
    expected = F.normalize(torch.from_numpy(GOLDEN[f"{name}/feat"]), dim=1)
    torch.testing.assert_close(features, expected, rtol=0, atol=FEATURE_ATOL)


@pytest.mark.parametrize("name", stored("/logits"))
def test_logits_and_labels_among_present_classes_are_the_authors(clips, name):
    variant, case, text = name.split("/")
    logits = clips[variant].patch_logits(view(case), torch.from_numpy(GOLDEN[TEXTS[text]]))
    expected = torch.from_numpy(GOLDEN[f"{name}/logits"])
    torch.testing.assert_close(logits, expected, rtol=0, atol=LOGITS_ATOL)
    if f"{name}/label_masked" in GOLDEN:
        labels = GOLDEN[f"{name}/label_masked"]
        assert (label_map(logits, labels.shape[-2:]) == labels).mean() >= 0.999


def test_templates_and_text_embeddings_are_the_authors(clips):
    templates = resolve_templates("carb")
    assert (len(templates), templates[79]) == (85, "a tattoo of the {}.")
    assert templates[80:] == list(SCENE_TEMPLATES)
    first = [templates[0].format(name) for name in CONFIG["classes"]]
    tokens = open_clip.SimpleTokenizer(context_length=77)(first)
    np.testing.assert_array_equal(tokens.numpy(), GOLDEN["tokens_first_template"])
    text = clips["quickgelu_eps1e-5"].embed_text([[name] for name in CONFIG["classes"]], templates)
    expected = torch.from_numpy(GOLDEN["text_embeddings_quickgelu"])
    torch.testing.assert_close(text, expected, rtol=0, atol=LOGITS_ATOL)


def test_a_2x8_grid_does_not_take_the_positions_of_the_4x4_training_grid(clips):
    features = clips["quickgelu_eps1e-5"].patch_features(view("sametok"))
    theirs = F.normalize(torch.from_numpy(GOLDEN["quickgelu_eps1e-5/sametok/feat"]), dim=1)
    assert (features - theirs).abs().max() > 0.01


def test_the_authors_activation_and_normalisation_can_be_chosen(clips, tmp_path):
    name = write_clip(tmp_path, golden_config("quickgelu_eps1e-5"), golden_weights())
    clip = as_the_authors(load_clip(name, None), normalisation="imagenet", activation="gelu")
    expected = F.normalize(torch.from_numpy(GOLDEN["gelu_eps1e-6/nonsq/feat"]), dim=1)
    features = clip.patch_features(view("nonsq"))
    torch.testing.assert_close(features, expected, rtol=0, atol=FEATURE_ATOL)
    assert clip.mean == (0.485, 0.456, 0.406)
    asked = [["car"]], ["a {}."]  # the text encoder keeps its activation
    assert torch.equal(clip.embed_text(*asked), clips["quickgelu_eps1e-5"].embed_text(*asked))
