"""The paper's recipes hold the values of the authors' configurations (commit 26f7c68)."""

import pytest
import torch

from pipeline.config.params import load_params
from pipeline.scenes.classes import LABEL_SPACES
from pipeline.segmenter.network import build_segmenter
from tests.helpers import ROOT

# tools/maskclip_utils/prompt_engineering.py: cityscape_carb, wilddash2 and camvid
CLASS_WORDS = {
    "cityscapes": "road, sidewalk, building, wall, fence, pole, traffic light, traffic sign, tree, "
    "grass, sky, pedestrian, rider, car, truck, bus, train, motorcycle, bicycle",
    "wilddash2": "ego vehicle, road, sidewalk, building, wall, fence, guard rail, pole, "
    "traffic light, traffic sign, vegetation, terrain, sky, person, rider, car, truck, bus, "
    "motorcycle, bicycle, pickup, van, billboard, streetlight, roadmarking",
    "camvid-paper": "sky, building, pole, road, sidewalk, tree, signsymbol, fence, car, "
    "pedestrian, bicyclist",
}


@pytest.mark.parametrize("recipe", CLASS_WORDS)
def test_class_words_are_those_of_the_authors(recipe):
    params = load_params(ROOT / f"recipes/{recipe}.yaml")
    words = LABEL_SPACES[params.dataset.name].words(params.clip.class_prompts)
    assert words == [[word] for word in CLASS_WORDS[recipe].split(", ")]


@pytest.mark.parametrize("recipe", [*CLASS_WORDS, "cityscapes-best"])
def test_augmentation_is_that_of_mmseg_in_our_units(recipe):
    augment = load_params(ROOT / f"recipes/{recipe}.yaml").augment
    assert (round(180 * augment.hue), augment.contrast, augment.saturation) == (18, 0.5, 0.5)
    assert 255 * augment.brightness == pytest.approx(32, abs=1e-3)
    assert augment.style == ("torchvision" if recipe == "cityscapes-best" else "mmseg")


@pytest.mark.parametrize("recipe", CLASS_WORDS)
def test_network_has_the_authors_dilations_and_text_width_and_no_dropout(recipe):
    params = load_params(ROOT / f"recipes/{recipe}.yaml")
    assert params.segmenter.classifier == "text"
    words = CLASS_WORDS[recipe].split(", ")
    with torch.device("meta"):
        model = build_segmenter(
            arch=params.segmenter.arch,
            encoder=params.segmenter.encoder,
            num_classes=len(words),
            options=params.segmenter.options,
            text=torch.empty(len(words), 512),  # of ViT-B/16
        )
    modules = list(model.decoder.modules())
    dilations = {m.dilation for m in modules if isinstance(m, torch.nn.Conv2d)}
    assert dilations == {(1, 1), (6, 6), (12, 12), (18, 18)}
    assert [m.p for m in modules if isinstance(m, torch.nn.Dropout)] == [0]
    assert model.decoder.conv.out_channels == 512
    assert not list(model.segmentation_head.parameters())
