"""The paper's prompt templates in their order."""

from pathlib import Path

import numpy as np
import open_clip

from pipeline.clip.prompts import resolve_templates

GOLDEN = Path(__file__).parents[1] / "golden" / "maskclip_vit_tiny.npz"
CLASSES = ["road", "traffic light", "tree", "car", "sky", "pedestrian", "bicycle"]


def test_carb_is_the_80_imagenet_templates_then_five_about_scenes():
    templates = resolve_templates("carb")
    assert len(templates) == 85
    assert templates[0] == "a bad photo of a {}."
    assert templates[79] == "a tattoo of the {}."
    assert templates[80:] == [
        "there is a {} in the scene.",
        "there is the {} in the scene.",
        "this is a {} in the scene.",
        "this is the {} in the scene.",
        "this is one {} in the scene.",
    ]


def test_the_first_template_gives_the_authors_tokens():
    first = resolve_templates("carb")[0]
    tokens = open_clip.SimpleTokenizer(context_length=77)([first.format(name) for name in CLASSES])
    np.testing.assert_array_equal(tokens.numpy(), np.load(GOLDEN)["tokens_first_template"])
