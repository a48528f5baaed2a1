"""A segmenter as others use it: plain smp, ONNX Runtime, and the card that tells of it."""

import io
import json
import logging
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from huggingface_hub import ModelCard, metadata_load
from PIL import Image
from pipeline.deploy.export import check_agreement
from torch import nn
from typer.testing import CliRunner

from pipeline.deploy.onnx import Difference, EvenPool, write_onnx
from pipeline.scenes.classes import LABEL_SPACES
from pipeline.segmenter.card import card_of
from pipeline.segmenter.network import build_segmenter
from pipeline.segmenter.saved import load_segmenter, save_segmenter
from stages import export

SPACE = LABEL_SPACES["camvid"]
FIGURES = {
    "mIoU": 0.4321,
    "pixel accuracy": 0.8,
    "IoU": dict.fromkeys(SPACE.names[1:], 0.5) | {SPACE.names[0]: None},
    "protocol": {"data": "camvid, val", "photos": 101},
}


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory) -> Path:
    """The demo's kind of network with few channels."""
    torch.manual_seed(3)
    model = build_segmenter(
        arch="unet",
        encoder="resnet18",
        num_classes=11,
        options={"encoder_depth": 3, "decoder_channels": [16, 8, 8]},
        text=None,
    )
    with torch.no_grad():
        model.train()(torch.randn(2, 3, 64, 96))
    folder = tmp_path_factory.mktemp("model") / "segmenter"
    save_segmenter(
        folder,
        model.eval(),
        classes=SPACE.names,
        palette=SPACE.palette,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        base_size=(64, 96),
        extra={"dataset": "camvid", "clip": "ViT-B-16", "photos": 367},
    )
    return folder


@pytest.fixture(scope="module")
def exported(segmenter, tmp_path_factory) -> tuple[Path, str]:
    """The folder that `carb export` writes, and what it says."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "metrics.json").write_text(json.dumps(FIGURES))
    arguments = ["--model", segmenter, "--out", folder / "onnx"]
    arguments += ["--metrics", folder / "metrics.json"]
    said = io.StringIO()
    handler = logging.StreamHandler(said)
    logging.getLogger("carb").addHandler(handler)
    done = CliRunner().invoke(export.app, [str(argument) for argument in arguments])
    logging.getLogger("carb").removeHandler(handler)
    assert done.exit_code == 0, done.output
    return folder / "onnx", said.getvalue()


def photo_in(folder: Path) -> Path:
    """Blocks of colours of an odd size."""
    blocks = np.random.default_rng(2).integers(0, 255, (4, 5, 3), np.uint8)
    Image.fromarray(blocks).resize((131, 83), 2).save(folder / "photo.jpg")
    return folder / "photo.jpg"


def run_alone(program: str, folder: Path) -> str:
    """Run a program in a process that has nothing of this project, not even where it lies."""
    head = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('pipeline', 'stages', 'bench', 'demo'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )
    tail = "\nassert not {'pipeline', 'stages'} & set(sys.modules)\n"
    run = subprocess.run(
        [sys.executable, "-I", "-c", head + program + tail],
        cwd=folder,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def snippet_of(card: Path) -> str:
    found = re.search(r"```python\n(.*?)```", card.read_text("utf-8"), re.DOTALL)
    assert found
    return found[1]


def test_smp_opens_a_segmenter_without_any_code_of_ours(segmenter, tmp_path) -> None:
    program = snippet_of(segmenter / "README.md").replace("path/of/this/folder", str(segmenter))
    program += "\nprint(tuple(logits.shape))"
    assert run_alone(program, tmp_path).splitlines()[-1] == "(1, 11, 64, 96)"


def test_the_cards_ten_lines_give_the_segmenters_mask(segmenter, exported, tmp_path) -> None:
    photo = photo_in(tmp_path)
    program = snippet_of(exported[0] / "README.md")
    assert len(program.splitlines()) == 10
    program = program.replace('"model.onnx"', repr(str(exported[0] / "model.onnx")))
    program += "\nmask.save('mask.png')\nassert 'torch' not in sys.modules"
    run_alone(program, tmp_path)
    with Image.open(tmp_path / "mask.png") as picture:
        mask = np.asarray(picture)
    with Image.open(photo) as picture:
        small, size = picture.resize((96, 64), Image.Resampling.BILINEAR), picture.size
    # Of a small photo enlarged classes: load_segmenter enlarges logits.
    ours = Image.fromarray(load_segmenter(segmenter)(small)).resize(size, Image.Resampling.NEAREST)
    assert (mask == np.asarray(ours)).mean() > 0.999


def test_the_cards_ten_lines_turn_a_phones_photo(exported, tmp_path) -> None:
    turned = Image.Exif()
    turned[0x0112] = 6
    with Image.open(photo_in(tmp_path)) as photo:
        photo.save(tmp_path / "turned.png", exif=turned)
        photo.transpose(Image.Transpose.ROTATE_270).save(tmp_path / "upright.png")
    masks = []
    for name in ("turned", "upright"):
        program = snippet_of(exported[0] / "README.md")
        program = program.replace('"model.onnx"', repr(str(exported[0] / "model.onnx")))
        run_alone(program.replace("photo.jpg", f"{name}.png") + "\nmask.save('mask.bmp')", tmp_path)
        with Image.open(tmp_path / "mask.bmp") as picture:
            masks.append(np.asarray(picture))
    assert masks[0].shape == (131, 83)
    assert np.array_equal(*masks)


@pytest.mark.parametrize(("opset", "version"), [("17", 8), ("19", 9)])
def test_an_older_operator_set_gives_the_same_classes(segmenter, tmp_path, opset, version) -> None:
    arguments = ["--model", segmenter, "--out", tmp_path / "onnx", "--opset", opset]
    done = CliRunner().invoke(export.app, [str(argument) for argument in arguments])
    assert done.exit_code == 0, done.output
    model = onnx.load(tmp_path / "onnx/model.onnx")
    onnx.checker.check_model(model)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", int(opset))]
    assert model.ir_version == version


def test_an_operator_set_that_is_not_reached_is_told(segmenter, tmp_path, monkeypatch) -> None:
    written = torch.onnx.export
    monkeypatch.setattr(  # the conversion fails for some networks, and leaves opset 18
        torch.onnx, "export", lambda *one, **more: written(*one, **more | {"opset_version": 18})
    )
    with pytest.raises(ValueError, match=r"^--opset 16: torch .* opset 18 at the lowest"):
        write_onnx(tmp_path / "x.onnx", load_segmenter(segmenter), opset=16)


def test_class_names_do_not_break_the_cards_table(segmenter) -> None:
    names = ["a|b", "two\nlines", "back\\slash", *SPACE.names[3:]]
    text = card_of(replace(load_segmenter(segmenter), classes=names), figures=None, onnx=True)
    for index, cell in enumerate([r"a\|b", "two lines", r"back\\slash"]):
        assert f"\n| {index} | {cell} | " in text


def test_the_export_tells_how_near_it_is_at_several_sizes(exported) -> None:
    found = re.findall(r"(\d+) x (\d+)x(\d+) pixels: logits differ by at most", exported[1])
    assert len(set(found)) == 4
    assert exported[1].count("100.000 % of pixels") >= 3


def test_the_file_knows_classes_colours_stride_and_base_size(exported) -> None:
    model = onnx.load(exported[0] / "model.onnx")
    onnx.checker.check_model(model)
    (entry,) = model.metadata_props
    about = json.loads(entry.value)
    assert about["classes"] == SPACE.names
    assert about["colours"] == SPACE.palette.tolist()
    assert (about["base_size"], about["stride"]) == ([64, 96], 8)
    assert about["normalisation"]["in_graph"] is True
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [axis.dim_param for axis in shape] == ["batch", "height", "width", ""]


def test_equal_segmenters_give_equal_files_without_paths(segmenter, exported, tmp_path) -> None:
    write_onnx(tmp_path / "again.onnx", load_segmenter(segmenter))
    content = (tmp_path / "again.onnx").read_bytes()
    assert content == (exported[0] / "model.onnx").read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in content
    assert b"site-packages" not in content


def test_a_file_that_names_other_classes_is_not_kept() -> None:
    good, bad = Difference((1, 64, 96), 1e-6, 1.0), Difference((2, 32, 64), 0.5, 0.98)
    check_agreement([good])
    with pytest.raises(ValueError, match=r"98\.00 % of pixels .* at 64x32 pixels.*is not kept"):
        check_agreement([good, bad])


@pytest.mark.parametrize("size", [(7, 5), (12, 9), (2, 2)])
def test_pooling_by_matrices_is_adaptive_pooling(size) -> None:
    features = torch.randn(2, 3, *size)
    ours, theirs = EvenPool((3, 2))(features), nn.AdaptiveAvgPool2d((3, 2))(features)
    assert torch.allclose(ours, theirs, atol=1e-6)


@pytest.mark.parametrize("which", ["smp", "onnx"])
def test_the_hub_can_read_the_card(segmenter, exported, which) -> None:
    path = {"smp": segmenter, "onnx": exported[0]}[which] / "README.md"
    front = metadata_load(path)
    assert front["pipeline_tag"] == "image-segmentation"
    assert (front["license"], front["datasets"]) == ("other", ["camvid"])
    data = ModelCard.load(path).data
    results = data.eval_results or []
    assert [result.metric_value for result in results] == ([0.4321] if which == "onnx" else [])
    text = path.read_text("utf-8")
    assert "image-level only" in text
    assert "ViT-B-16" in text
    assert all(f"| {name} |" in text for name in SPACE.names)


@pytest.mark.parametrize(
    ("content", "words"),
    [(None, "not readable"), ("{", "not readable"), ('{"mIoU": 1}', "must hold mIoU")],
)
def test_metrics_of_another_kind_are_refused(segmenter, tmp_path, content, words) -> None:
    metrics = tmp_path / "metrics.json"
    if content is not None:
        metrics.write_text(content)
    arguments = ["--model", segmenter, "--out", tmp_path / "onnx", "--metrics", metrics]
    done = CliRunner().invoke(export.app, [str(argument) for argument in arguments])
    assert done.exit_code == 2
    assert words in " ".join(done.output.split())
    assert not (tmp_path / "onnx").exists()
