"""A segmenter as others use it: plain smp, ONNX Runtime, and the card that describes it."""

import json
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

from pipeline.deploy.onnx import Difference, check_agreement, write_onnx
from pipeline.segmenter.card import model_card
from pipeline.segmenter.saved import load_segmenter
from stages import export
from tests.deploy.conftest import Run
from tests.helpers.small_photos import SPACE, random_segmenter

METRICS = {
    "mIoU": 0.4321,
    "pixel accuracy": 0.8,
    "IoU": dict.fromkeys(SPACE.names[1:], 0.5) | {SPACE.names[0]: None},
    "protocol": {"data": "camvid, val", "photos": 101},
}


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    extra = {"dataset": "camvid", "clip": "ViT-B-16", "photos": 367}
    return random_segmenter(tmp_path_factory.mktemp("model") / "segmenter", extra=extra)


@pytest.fixture(scope="module")
def exported(segmenter: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that `carb export` writes."""
    folder = tmp_path_factory.mktemp("exported")
    (folder / "metrics.json").write_text(json.dumps(METRICS))
    from pipeline.deploy.onnx import export

    export(load_segmenter(segmenter), folder / "onnx", metrics=folder / "metrics.json")
    return folder / "onnx"


def photo_in(folder: Path) -> Path:
    """Coloured blocks of an odd size."""
    blocks = np.random.default_rng(2).integers(0, 255, (4, 5, 3), np.uint8)
    Image.fromarray(blocks).resize((131, 83), 2).save(folder / "photo.jpg")
    return folder / "photo.jpg"


def run_alone(program: str, folder: Path) -> str:
    """Run a program in a process that cannot import this project."""
    head = (
        "import sys\n"
        "class Refuse:\n"
        "    def find_spec(self, name, path=None, target=None):\n"
        "        if name.split('.')[0] in ('pipeline', 'stages', 'bench', 'demo'):\n"
        "            raise ImportError(name)\n"
        "sys.meta_path.insert(0, Refuse())\n"
    )
    run = subprocess.run(
        [sys.executable, "-I", "-c", head + program],
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


def test_smp_opens_a_segmenter_without_any_code_of_ours(segmenter: Path, tmp_path: Path) -> None:
    program = snippet_of(segmenter / "README.md").replace("path/of/this/folder", str(segmenter))
    program += "\nprint(tuple(logits.shape))"
    assert run_alone(program, tmp_path).splitlines()[-1] == "(1, 11, 64, 96)"


def test_the_cards_ten_lines_give_the_segmenters_mask_of_a_phones_photo_too(
    segmenter: Path, exported: Path, tmp_path: Path
) -> None:
    rotated = Image.Exif()
    rotated[0x0112] = 6
    with Image.open(photo_in(tmp_path)) as photo:
        photo.save(tmp_path / "rotated.png", exif=rotated)
        upright = photo.transpose(Image.Transpose.ROTATE_270)
        size, small = photo.size, photo.resize((96, 64), Image.Resampling.BILINEAR)
    upright.save(tmp_path / "upright.png")
    program = snippet_of(exported / "README.md")
    assert len(program.splitlines()) == 10
    program = program.replace('"model.onnx"', repr(str(exported / "model.onnx")))
    program += "\nmask.save('mask.png')\nassert 'torch' not in sys.modules"
    masks = []
    for name in ("photo.jpg", "rotated.png", "upright.png"):
        run_alone(program.replace("photo.jpg", name), tmp_path)
        with Image.open(tmp_path / "mask.png") as picture:
            masks.append(np.asarray(picture))
    assert np.array_equal(masks[1], masks[2])
    # The card enlarges the classes of a small photo, load_segmenter the logits.
    ours = Image.fromarray(load_segmenter(segmenter)(small)).resize(size, Image.Resampling.NEAREST)
    assert (masks[0] == np.asarray(ours)).mean() > 0.999


def test_an_older_operator_set_gives_the_same_classes(
    segmenter: Path, tmp_path: Path, run: Run
) -> None:
    said = run("--out", tmp_path / "onnx", "--opset", "17", model=segmenter, app=export.app)
    sizes = re.findall(r"(\d+ x \d+x\d+) pixels: logits differ by .*? at (\S+) %", said)
    assert sizes == [("1 x 96x64", "100.000"), ("2 x 64x64", "100.000")]
    model = onnx.load(tmp_path / "onnx/model.onnx")
    onnx.checker.check_model(model)
    assert [(one.domain, one.version) for one in model.opset_import] == [("", 17)]
    assert model.ir_version == 8


def test_an_operator_set_that_torch_cannot_write_is_an_error(
    segmenter: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = torch.onnx.export
    monkeypatch.setattr(  # the conversion fails for some networks, and leaves opset 18
        torch.onnx, "export", lambda *one, **more: written(*one, **more | {"opset_version": 18})
    )
    with pytest.raises(ValueError, match=r"^--opset 16: the lowest that torch .* is opset 18"):
        write_onnx(tmp_path / "x.onnx", load_segmenter(segmenter), opset=16)


@pytest.mark.parametrize("arch", ["pspnet", "upernet"])
def test_pooling_to_a_grid_is_refused(tmp_path: Path, run: Run, arch: str) -> None:
    model = random_segmenter(tmp_path / "model", arch=arch)
    said = run("--out", tmp_path / "onnx", model=model, app=export.app, code=2)
    assert " is not exportable: PyTorch fixes its pooling to one image size; train another" in said
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize("missing", ["onnx", "onnxruntime", "onnxscript"])
def test_missing_libraries_end_in_one_sentence(
    tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.delitem(sys.modules, "pipeline.deploy.onnx")
    monkeypatch.setitem(sys.modules, missing, None)
    said = run("--out", tmp_path / "onnx", app=export.app, code=2)
    hint = "export needs onnx, onnxruntime and onnxscript: pip install -e '.[deploy]'"
    assert said.strip() == f"error: {hint}"


def test_class_names_do_not_break_the_cards_table(segmenter: Path) -> None:
    names = ["a|b", "two\nlines", "back\\slash", *SPACE.names[3:]]
    text = model_card(replace(load_segmenter(segmenter), classes=names), metrics=None, onnx=True)
    for index, cell in enumerate([r"a\|b", "two lines", r"back\\slash"]):
        assert f"\n| {index} | {cell} | " in text


def test_the_file_contains_classes_colours_stride_and_base_size(exported: Path) -> None:
    model = onnx.load(exported / "model.onnx")
    onnx.checker.check_model(model)
    (entry,) = model.metadata_props
    about = json.loads(entry.value)
    assert about["classes"] == SPACE.names
    assert about["colours"] == SPACE.palette.tolist()
    assert (about["base_size"], about["stride"]) == ([64, 96], 32)
    assert about["normalisation"]["in_graph"] is True
    shape = model.graph.input[0].type.tensor_type.shape.dim
    assert [axis.dim_param for axis in shape] == ["batch", "height", "width", ""]


def test_equal_segmenters_give_equal_files_without_paths(
    segmenter: Path, exported: Path, tmp_path: Path
) -> None:
    write_onnx(tmp_path / "again.onnx", load_segmenter(segmenter))
    content = (tmp_path / "again.onnx").read_bytes()
    assert content == (exported / "model.onnx").read_bytes()
    assert str(Path(__file__).parents[2]).encode() not in content
    assert b"site-packages" not in content


def test_a_file_that_predicts_other_classes_is_discarded() -> None:
    good, bad = Difference((1, 64, 96), 1e-6, 1.0), Difference((2, 32, 64), 0.5, 0.98)
    check_agreement([good])
    with pytest.raises(ValueError, match=r"at 98\.00 % of pixels of 64x32 .* was discarded"):
        check_agreement([good, bad])


@pytest.mark.parametrize("which", ["smp", "onnx"])
def test_the_hub_can_read_the_card(segmenter: Path, exported: Path, which: str) -> None:
    path = {"smp": segmenter, "onnx": exported}[which] / "README.md"
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
    [(None, "not readable"), ("{", "not readable"), ('{"mIoU": 1}', "must contain mIoU")],
)
def test_metrics_of_another_kind_are_refused(
    tmp_path: Path, run: Run, content: str | None, words: str
) -> None:
    metrics = tmp_path / "metrics.json"
    if content is not None:
        metrics.write_text(content)
    said = run("--out", tmp_path / "onnx", "--metrics", metrics, app=export.app, code=2)
    assert words in said
    assert not (tmp_path / "onnx").exists()
