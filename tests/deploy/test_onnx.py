"""ONNX export and model cards: both work with plain libraries, without this project."""

import ast
import json
import re
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from huggingface_hub import ModelCard, metadata_load
from PIL import Image

from pipeline.deploy.onnx import check_against_torch, export, read_metrics, write_onnx
from pipeline.segmenter.card import model_card
from pipeline.segmenter.saved import load_segmenter
from stages.export import app
from tests.deploy.conftest import Run
from tests.helpers.small_photos import SPACE, random_segmenter

DEEPLAB = {"decoder_channels": 16, "encoder_output_stride": 8, "decoder_atrous_rates": [2, 4, 6]}
METRICS = {
    "mIoU": 0.4321,
    "pixel accuracy": 0.8,
    "IoU": dict.fromkeys(SPACE.names[1:], 0.5) | {SPACE.names[0]: None},
    "protocol": {"data": "camvid, val", "photos": 101},
}


@pytest.fixture(scope="module")
def deeplab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A segmenter whose logits are upsampled by this project."""
    extra = {"dataset": "camvid", "clip": "ViT-B-16", "photos": 367}
    folder = tmp_path_factory.mktemp("deeplab") / "segmenter"
    return random_segmenter(folder, arch="deeplabv3", options=DEEPLAB, extra=extra)


@pytest.fixture(scope="module")
def exported(deeplab: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported")
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    export(load_segmenter(deeplab), folder / "onnx", metrics=folder / "metrics.json")
    return folder / "onnx"


def test_metrics_of_another_network_are_refused(deeplab: Path, tmp_path: Path) -> None:
    about = {"sha256": "0" * 64, "folder": "models/segmenter/snapshots/000010"}
    (tmp_path / "metrics.json").write_text(json.dumps(METRICS | {"network": about}))
    with pytest.raises(ValueError, match="of another network, models/segmenter/snapshots/000010"):
        export(load_segmenter(deeplab), tmp_path / "onnx", metrics=tmp_path / "metrics.json")
    assert not (tmp_path / "onnx").exists()


def snippet_of(card: Path, libraries: set[str]) -> str:
    """The card's Python code, which imports the given libraries only."""
    found = re.search(r"```python\n(.*?)```", card.read_text("utf-8"), re.DOTALL)
    assert found
    names = set()
    for node in ast.walk(ast.parse(found[1])):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(str(node.module))
    assert names == libraries
    return found[1]


@torch.no_grad()
def test_the_cards_lines_open_a_segmenter_with_plain_smp(deeplab: Path) -> None:
    lines = snippet_of(deeplab / "README.md", {"segmentation_models_pytorch", "torch"})
    found: dict[str, torch.Tensor] = {}
    exec(lines.replace("path/of/this/folder", str(deeplab)), found)
    assert found["logits"].shape == (1, 11, 64, 96)


def test_the_cards_ten_lines_give_the_segmenters_mask_of_a_rotated_photo_too(
    deeplab: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rotated = Image.Exif()
    rotated[0x0112] = 6
    blocks = np.random.default_rng(2).integers(0, 255, (4, 5, 3), np.uint8)
    photo = Image.fromarray(blocks).resize((131, 83), 2)
    photo.save("photo.png")
    photo.save("rotated.png", exif=rotated)
    photo.transpose(Image.Transpose.ROTATE_270).save("upright.png")
    lines = snippet_of(exported / "README.md", {"json", "numpy", "onnxruntime", "PIL"})
    assert len(lines.splitlines()) == 10
    lines = lines.replace('"model.onnx"', repr(str(exported / "model.onnx")))
    masks = []
    for name in ("photo.png", "rotated.png", "upright.png"):
        found: dict[str, Image.Image] = {}
        exec(lines.replace("photo.jpg", name), found)
        masks.append(np.asarray(found["mask"]))
    assert np.array_equal(masks[1], masks[2])
    # The card enlarges the classes of a resized photo, load_segmenter the logits.
    small = photo.resize((96, 64), Image.Resampling.BILINEAR)
    own = Image.fromarray(load_segmenter(deeplab)(small)).resize(photo.size, 0)
    assert (masks[0] == np.asarray(own)).mean() > 0.999


@torch.no_grad()
def test_the_onnx_file_normalises_and_upsamples_as_the_card_says(
    deeplab: Path, exported: Path
) -> None:
    photos = np.random.default_rng(0).integers(0, 255, (1, 32, 64, 3), np.uint8)
    session = onnxruntime.InferenceSession(exported / "model.onnx")
    found = torch.from_numpy(session.run(None, {"photos": photos})[0])
    card = (exported / "README.md").read_text()
    mean, std = (
        torch.tensor(json.loads(text))[:, None, None]
        for text in re.findall(r"(?:mean|std)\s(\[.*?\])", card)
    )
    small = smp.from_pretrained(str(deeplab)).eval()(
        (torch.from_numpy(photos).permute(0, 3, 1, 2) / 255 - mean) / std
    )
    assert small.shape[-1] < 64
    torch.testing.assert_close(
        found, F.interpolate(small, (32, 64), mode="bilinear"), rtol=1e-4, atol=1e-4
    )


def test_an_older_operator_set_gives_the_same_classes(tmp_path: Path, run: Run) -> None:
    said = run("--out", tmp_path / "onnx", "--opset", "17", app=app)
    sizes = re.findall(r"(\d+ x \d+x\d+) pixels: logits differ by .*? at (\S+) %", said)
    assert sizes == [("1 x 96x64", "100.000"), ("2 x 64x64", "100.000")]
    model = onnx.load(tmp_path / "onnx/model.onnx")
    onnx.checker.check_model(model)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 17)]
    assert model.ir_version == 8


def test_an_operator_set_that_torch_cannot_write_is_an_error(
    segmenter: Path, exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # For some networks torch ignores the operator set and writes its own.
    made = SimpleNamespace(model_proto=onnx.load(exported / "model.onnx"))
    monkeypatch.setattr(torch.export, "export", lambda *_, **options: None)
    monkeypatch.setattr(torch.onnx, "export", lambda *_, **options: made)
    with pytest.raises(ValueError, match=r"^--opset 16: the lowest that torch .* is opset 20"):
        write_onnx(tmp_path / "x.onnx", load_segmenter(segmenter), opset=16)


def test_pooling_to_a_grid_is_refused(tmp_path: Path, run: Run) -> None:
    model = random_segmenter(tmp_path / "model", arch="pspnet")
    said = run("--out", tmp_path / "onnx", model=model, app=app, code=2)
    assert " is not exportable: PyTorch fixes its pooling to one image size; train another" in said
    assert not (tmp_path / "onnx").exists()


def test_missing_libraries_end_in_one_sentence(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "pipeline.deploy.onnx")
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    said = run("--out", tmp_path / "onnx", app=app, code=2)
    hint = "export needs onnx, onnxruntime and onnxscript: pip install -e '.[deploy]'"
    assert said.strip() == f"error: {hint}"


def test_class_names_do_not_break_the_cards_table(deeplab: Path) -> None:
    names = ["a|b", "two\nlines", "back\\slash", *SPACE.names[3:]]
    text = model_card(replace(load_segmenter(deeplab), classes=names), metrics=None, onnx=True)
    for index, cell in enumerate([r"a\|b", "two lines", r"back\\slash"]):
        assert f"\n| {index} | {cell} | " in text


def test_the_file_contains_metadata_and_no_paths(exported: Path) -> None:
    model = onnx.load(exported / "model.onnx")
    onnx.checker.check_model(model)
    (entry,) = model.metadata_props
    about = json.loads(entry.value)
    assert about["classes"] == SPACE.names
    assert about["colours"] == SPACE.palette.tolist()
    assert (about["base_size"], about["stride"]) == ([64, 96], 8)
    assert about["normalisation"]["in_graph"] is True
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [axis.dim_param for axis in shape] == ["batch", "height", "width", ""]
    content = (exported / "model.onnx").read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in content
    assert b"site-packages" not in content


def test_a_file_that_predicts_other_classes_is_refused(deeplab: Path, exported: Path) -> None:
    other = replace(load_segmenter(deeplab), std=(-0.2, -0.2, -0.2))
    with pytest.raises(ValueError, match=r" % of pixels of 96x64 images, .* was discarded"):
        check_against_torch(exported / "model.onnx", other)


def test_the_hub_can_read_the_cards(deeplab: Path, exported: Path) -> None:
    for folder, scores in ((deeplab, []), (exported, [0.4321])):
        path = folder / "README.md"
        front = metadata_load(path)
        assert front["pipeline_tag"] == "image-segmentation"
        assert (front["license"], front["datasets"]) == ("other", ["camvid"])
        results = ModelCard.load(path).data.eval_results or []
        assert [result.metric_value for result in results] == scores
        text = path.read_text("utf-8")
        assert "image-level only" in text
        assert "ViT-B-16" in text
        assert all(f"| {name} |" in text for name in SPACE.names)


def test_other_files_than_metrics_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "metrics.json"
    for content, words in ((None, "readable"), ("{", "readable"), ('{"mIoU": 1}', "contain mIoU")):
        if content is not None:
            path.write_text(content)
        with pytest.raises(ValueError, match=f"^--metrics .*{words}.*; give the metrics.json of"):
            read_metrics(path)
