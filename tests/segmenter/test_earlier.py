"""Start from an earlier segmenter: every layer is loaded, classifier rows by class name."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from pipeline.scenes.classes import ClassInfo
from pipeline.segmenter.earlier import load_earlier
from pipeline.segmenter.network import TextClassifier, build_segmenter
from pipeline.segmenter.saved import load_segmenter
from tests.helpers.small_photos import SPACE, random_segmenter

OPTIONS = {"decoder_channels": [16, 16, 8, 8, 4]}
CLASSES = ["rocket", SPACE.names[1], SPACE.names[0]]
NORMALISATION = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.fixture(scope="module")
def old(tmp_path_factory: pytest.TempPathFactory) -> Path:
    space = replace(SPACE, classes=(*SPACE.classes[:2], ClassInfo("kite", (1, 2, 3), ("kite",))))
    return random_segmenter(tmp_path_factory.mktemp("old") / "segmenter", space=space)


def fresh(**changes: object) -> nn.Module:
    torch.manual_seed(8)
    settings = {"arch": "unet", "encoder": "resnet18", "options": OPTIONS, "text": None}
    return build_segmenter(num_classes=len(CLASSES), **settings | changes)


def start(model: nn.Module, path: Path, encoder: str = "resnet18") -> str:
    return load_earlier(model, path, encoder=encoder, classes=CLASSES, normalisation=NORMALISATION)


def test_layers_are_loaded_and_rows_go_to_the_classes_of_their_name(old: Path) -> None:
    model, before = fresh(), fresh().state_dict()
    line = start(model, old / "model.safetensors")
    one, two = SPACE.names[:2]
    assert line.endswith(f"classes matched: {two}, {one}; new: rocket; not used: kite")
    earlier, now = load_segmenter(old).model.cpu().state_dict(), model.state_dict()
    for name, value in now.items():
        if not name.startswith("segmentation_head"):
            assert torch.equal(value, earlier[name]), name
        else:
            assert torch.equal(value[0], before[name][0])
            assert torch.equal(value[1:], earlier[name][[1, 0]])


def test_a_text_classifier_stays(old: Path) -> None:
    text = torch.rand(len(CLASSES), 4)
    model = fresh(text=text)
    assert "text" in start(model, old)
    head = model.get_submodule("segmentation_head.0")
    assert isinstance(head, TextClassifier)
    assert torch.equal(head.text, text)


def test_another_network_is_refused(old: Path, tmp_path: Path) -> None:
    says = "segmenter.weights: .*: made with segmenter.{} {}, not {}; set it"
    with pytest.raises(ValueError, match=says.format("arch", "Unet", "FPN")):
        start(fresh(arch="fpn", options={}), old)
    with pytest.raises(ValueError, match=says.format("encoder", "resnet18", "resnet34")):
        start(fresh(), old, encoder="resnet34")
    wide = fresh(options={"decoder_channels": [32, 16, 8, 8, 4]})
    with pytest.raises(ValueError, match=r"segmenter\.options: \d+ of another shape \(decoder"):
        start(wide, old)
    for path in (tmp_path, tmp_path / "none.safetensors"):
        with pytest.raises(ValueError, match=f"weights: {path}: no model.safetensors there; name"):
            start(fresh(), path)
    damaged = tmp_path / "damaged"
    damaged.mkdir()
    for file in old.iterdir():
        (damaged / file.name).write_bytes(file.read_bytes())
    content = json.loads((damaged / "carb.json").read_text())
    (damaged / "carb.json").write_text(json.dumps(content | {"weights_sha256": "0"}))
    with pytest.raises(ValueError, match=r"segmenter.weights: .* is damaged, .*; name another"):
        start(fresh(), damaged)
