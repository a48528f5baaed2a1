"""The segmenter: text classifier, every architecture, its last upsampling, saving and loading."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from pipeline.scenes.classes import LABEL_SPACES
from pipeline.segmenter.inference import predict_logits
from pipeline.segmenter.network import TextClassifier, build_segmenter
from pipeline.segmenter.saved import load_segmenter, save_segmenter

GOLDEN = Path(__file__).parents[1] / "golden" / "aspp_text_head.npz"
SPACE = LABEL_SPACES["camvid"]
UNET = {"decoder_channels": [32, 16, 16, 8, 32]}
DEEPLAB = {"decoder_channels": 32, "encoder_output_stride": 8, "decoder_atrous_rates": [2, 4, 6]}
DPT = {
    "dynamic_img_size": True,
    "decoder_intermediate_channels": [8, 8, 8, 8],
    "decoder_fusion_channels": 8,
}
ENCODERS = {"dpt": "tu-vit_tiny_patch16_224", "deeplabv3plus": "tu-regnetx_002"}
OPTIONS = dict.fromkeys(("unet", "unetplusplus", "manet"), UNET) | {"dpt": DPT}
OPTIONS |= dict.fromkeys(("deeplabv3", "deeplabv3plus"), DEEPLAB)
FULL_SIZE = {"unet", "unetplusplus", "manet", "linknet"}  # their own logits have the input's size


class Aspp(nn.Module):
    """The authors' decode head in front of its classifier: four dilated branches, summed."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        self.aspp_modules = nn.ModuleList()
        for dilation in (6, 12, 18, 24):
            branch = nn.Sequential()
            conv = nn.Conv2d(16, 32, 3, padding=dilation, dilation=dilation, bias=False)
            branch.add_module("conv", conv)
            branch.add_module("bn", nn.BatchNorm2d(32))
            branch.add_module("relu", nn.ReLU())
            self.aspp_modules.append(branch)
        self.load_state_dict(weights)

    def forward(self, features: Tensor) -> Tensor:
        return torch.stack([branch(features) for branch in self.aspp_modules]).sum(dim=0)


def build(arch: str, text: Tensor | None = None) -> nn.Module:
    """A small model whose norms have seen data."""
    torch.manual_seed(3)
    options, encoder = OPTIONS.get(arch, {}), ENCODERS.get(arch, "resnet18")
    model = build_segmenter(arch=arch, encoder=encoder, num_classes=11, options=options, text=text)
    with torch.no_grad():
        model.train()(torch.randn(2, 3, 128, 128))
    return model.eval()


def save(directory: Path, model: nn.Module) -> None:
    save_segmenter(
        directory,
        model,
        classes=SPACE.names,
        palette=SPACE.palette,
        mean=(0.4, 0.5, 0.6),
        std=(0.1, 0.2, 0.3),
        base_size=(128, 160),
        extra={"steps": 7},
    )


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("saved") / "segmenter"
    save(directory, build("unet"))
    return directory


@pytest.fixture
def copied(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "segmenter"))


def edit(path: Path, **changes: object) -> None:
    """Change values of a JSON file; None removes one."""
    content = json.loads(path.read_text()) | changes
    removed = [name for name, value in changes.items() if value is None]
    path.write_text(json.dumps({name: content[name] for name in content if name not in removed}))


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_text_classifier_on_the_authors_aspp_gives_their_logits(mode):
    golden = {name: torch.from_numpy(value) for name, value in np.load(GOLDEN).items()}
    weights = {name[2:]: value for name, value in golden.items() if name.startswith("w/")}
    head = nn.Sequential(Aspp(weights), TextClassifier(golden["text_embeddings"]))
    x = golden["x"].clone().requires_grad_()
    logits = head.train(mode == "train")(x)
    torch.testing.assert_close(logits, golden[f"logits_{mode}"], rtol=0, atol=1e-5)
    if mode == "train":
        logits.square().mean().backward()
        torch.testing.assert_close(x.grad, golden["grad_x_of_mean_sq"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [1, 3])
def test_the_text_is_the_weight_and_its_plain_convolution_does_the_same(size):
    torch.manual_seed(0)
    text, x = torch.randn(5, 6), torch.randn(2, 6, 7, 9)
    classifier = TextClassifier(text, size)
    wanted = torch.zeros(2, 5, 7, 9)
    for y in range(7):
        for column in range(9):
            wanted[:, :, y, column] = x[:, :, y, column] @ text.T
    torch.testing.assert_close(classifier(x), wanted, rtol=1e-5, atol=1e-5)
    conv = classifier.as_convolution()
    torch.testing.assert_close(conv(x), wanted, rtol=1e-5, atol=1e-5)
    assert not list(classifier.parameters())  # nothing in it is learned


def shares(length: int, cells: int) -> Tensor:
    """How much each cell counts in each pixel, ``[length, cells]``: centres at half a pixel."""
    weights = torch.zeros(length, cells, dtype=torch.float64)
    for pixel in range(length):
        place = max(0.0, (pixel + 0.5) * cells / length - 0.5)
        first = int(place)
        weights[pixel, first] += 1 - (place - first)
        weights[pixel, min(first + 1, cells - 1)] += place - first
    return weights


def by_hand(small: Tensor, size: tuple[int, int]) -> Tensor:
    """The authors' ``F.interpolate(..., align_corners=False)``, pixel for pixel."""
    rows, columns = (shares(*pair) for pair in zip(size, small.shape[2:], strict=True))
    return rows @ small @ columns.T


@pytest.mark.parametrize("arch", sorted(smp.MODEL_ARCHITECTURES_MAPPING))
@torch.no_grad()
def test_every_architecture_takes_text_and_opens_with_plain_smp(arch, tmp_path):
    width = 8 if arch == "dpt" else 32  # of Linknet always
    model = build(arch, text=F.normalize(torch.randn(11, width), dim=1))
    save(tmp_path, model)
    plain, loaded = smp.from_pretrained(str(tmp_path)).eval(), load_segmenter(tmp_path)
    if arch == "dpt":  # the model card says so
        assert "upsampling_factor = 1" in (tmp_path / "README.md").read_text()
        plain.segmentation_head.upsampling_factor = 1
    size = (128, 160)
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8))
    mean, std = (torch.tensor(each)[:, None, None] for each in (loaded.mean, loaded.std))
    images = (torch.from_numpy(np.array(photo)).permute(2, 0, 1) / 255 - mean)[None] / std
    small = plain.double()(images.double())  # attention enlarges float32's rounding
    assert (small.shape[2:] == images.shape[2:]) == (arch in FULL_SIZE)
    wanted = by_hand(small, size)
    predicted = predict_logits(loaded, [photo], size)
    torch.testing.assert_close(predicted, wanted.float(), rtol=1e-4, atol=1e-4)
    for own in (model, loaded.model):
        found = own.double()(images.double()).double()  # enlarged in float32
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("arch", ["deeplabv3", "dpt"])
@torch.no_grad()
def test_older_segmenters_keep_the_upsampling_of_smp(arch, tmp_path):
    save(tmp_path, build(arch))
    if arch != "dpt":
        edit(tmp_path / "config.json", upsampling=8)
    edit(tmp_path / "carb.json", align_corners=None)  # as it was written before
    images = torch.randn(1, 3, 64, 96)
    plain = smp.from_pretrained(str(tmp_path)).eval()
    conv = plain.segmentation_head.head if arch == "dpt" else plain.segmentation_head[0]
    found = []
    conv.register_forward_hook(lambda module, given, small: found.append(small))
    wanted = plain(images)
    torch.testing.assert_close(load_segmenter(tmp_path).model(images), wanted)
    old = F.interpolate(found[0], wanted.shape[2:], mode="bilinear", align_corners=True)
    torch.testing.assert_close(wanted, old)


def test_saving_replaces_a_folder_keeps_the_model_and_gives_equal_bytes_twice(tmp_path):
    model = build("unet", text=torch.ones(11, 32))
    (tmp_path / "second").mkdir()
    (tmp_path / "second" / "old").touch()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    for name in ("first", "second"):
        save(tmp_path / name, model.train())
    assert model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])
    names = sorted(path.name for path in (tmp_path / "second").iterdir())
    assert names == ["README.md", "carb.json", "config.json", "model.safetensors"]
    for name in names:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_a_loaded_segmenter_has_all_that_inference_needs(saved, capsys):
    segmenter = load_segmenter(saved)
    assert capsys.readouterr().out == ""
    assert not segmenter.model.training
    assert segmenter.classes == SPACE.names
    assert segmenter.palette.dtype == np.uint8
    assert np.array_equal(segmenter.palette, SPACE.palette)
    assert (segmenter.mean, segmenter.std) == ((0.4, 0.5, 0.6), (0.1, 0.2, 0.3))
    assert (segmenter.base_size, segmenter.stride) == ((128, 160), 32)
    assert segmenter.extra == {"steps": 7}


@pytest.mark.parametrize("name", ["carb.json", "config.json", "model.safetensors"])
def test_a_damaged_or_missing_file_is_refused(copied, name):
    content = (copied / name).read_bytes()
    (copied / name).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="is damaged"):
        load_segmenter(copied)
    (copied / name).unlink()
    with pytest.raises(ValueError, match=f"is not a segmenter of this pipeline, {name} is missing"):
        load_segmenter(copied)


def test_a_flipped_bit_of_the_weights_is_reported_with_the_repair(copied):
    content = bytearray((copied / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (copied / "model.safetensors").write_bytes(content)
    message = (
        r"model.safetensors is not the file that training wrote; if you .*, remove 'weights_.*; "
        r"run `dvc repro --force --single-item train` to make it again"
    )
    with pytest.raises(ValueError, match=message):
        load_segmenter(copied)
    edit(copied / "carb.json", weights_sha256=None)
    load_segmenter(copied)  # as the message says


@pytest.mark.filterwarnings(r"ignore:\s*!+ Mismatched keys:UserWarning")  # smp warns, then raises
def test_classes_or_weights_that_do_not_fit_are_refused(copied):
    config = copied / "config.json"
    edit(config, classes=10)
    with pytest.raises(ValueError, match=r"names 11 classes and config.json 10"):
        load_segmenter(copied)
    edit(config, classes=11, encoder_name="resnet50")
    with pytest.raises(ValueError, match="is damaged"):
        load_segmenter(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "unett"}, "segmenter.arch must be one of deeplabv3, .*, got 'unett'"),
        ({"encoder": "tu-regnetx_0022"}, "segmenter.encoder .* did you mean .*tu-regnetx_002"),
        ({"encoder": "?"}, "got '\\?'; smp's documentation lists them"),
        ({"options": {"stride": 8}}, "options: 'unet' does not take 'stride'; .*decoder_channels"),
        ({"options": {"classes": 3}}, "'unet' does not take 'classes'"),
        ({"options": {"upsampling": 4}}, "'upsampling' is set by the pipeline.*; remove it"),
        (
            {"arch": "deeplabv3", "options": {"decoder_aspp_separable": "no"}},
            "options.decoder_aspp_separable must be true or false, got 'no'",
        ),
        ({"arch": "linknet", "encoder": "mit_b0", "options": {}}, "do not fit together"),
        (
            {"text": torch.ones(11, 64)},
            r"decoder_channels must be \[32, 16, 16, 8, 64\] for .*got \[32, 16, 16, 8, 32\]",
        ),
        (
            {"text": torch.ones(11, 64), "arch": "linknet", "options": {}},
            "'text' needs a decoder .* as the embeddings, 64, and Linknet's has 32",
        ),
        ({"text": torch.ones(10, 4)}, r"text embeddings must be \[11, D\].* got \[10, 4\]"),
    ],
)
def test_a_segmenter_that_cannot_be_built_is_explained(change, message):
    values = {"arch": "unet", "encoder": "resnet18", "options": UNET, "text": None}
    with pytest.raises(ValueError, match=message):
        build_segmenter(num_classes=11, **(values | change))
