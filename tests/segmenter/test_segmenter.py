"""The segmenter: building, the text classifier, saving and opening."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import segmentation_models_pytorch as smp
import torch
from torch import Tensor, nn

from pipeline.scenes.classes import LABEL_SPACES
from pipeline.segmenter.network import TextClassifier, build_segmenter, size_divisor
from pipeline.segmenter.saved import load_segmenter, save_segmenter

GOLDEN = Path(__file__).parents[1] / "golden" / "aspp_text_head.npz"
SPACE = LABEL_SPACES["camvid"]
WIDTH = 24  # of the text
UNET = {"decoder_channels": [32, 16, 16, 8, 8]}
DEEPLAB = {"decoder_channels": 16, "encoder_output_stride": 8, "decoder_atrous_rates": [2, 4, 6]}


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


def build(arch: str, encoder: str, options: dict, *, text: bool) -> nn.Module:
    """A model whose norms have seen data, so that eval mode says something."""
    torch.manual_seed(3)
    embeddings = nn.functional.normalize(torch.randn(11, WIDTH), dim=1) if text else None
    if text:  # the decoder is as wide as the text
        channels = options["decoder_channels"]
        wide = [*channels[:-1], WIDTH] if isinstance(channels, list) else WIDTH
        options = options | {"decoder_channels": wide}
    model = build_segmenter(
        arch=arch, encoder=encoder, num_classes=11, options=options, text=embeddings
    )
    with torch.no_grad():
        model.train()(torch.randn(2, 3, 64, 64))
    return model.eval()


def save(directory: Path, model: nn.Module, **changes: object) -> None:
    values = {
        "classes": SPACE.names,
        "palette": SPACE.palette,
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
        "base_size": (64, 96),
        "extra": {"steps": 7},
    }
    save_segmenter(directory, model, **(values | changes))


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    directory = tmp_path_factory.mktemp("saved") / "segmenter"
    save(directory, build("unet", "resnet18", UNET, text=True))
    return directory


@pytest.fixture
def copied(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "segmenter"))


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
    assert torch.equal(conv.weight[:, :, size // 2, size // 2], text)
    assert conv.weight.count_nonzero() == text.numel()
    assert not conv.bias.any()
    assert not list(classifier.parameters())  # nothing in it learns


@pytest.mark.parametrize(
    ("arch", "encoder", "options", "text"),
    [
        ("unet", "resnet18", UNET, True),
        ("deeplabv3", "resnet18", DEEPLAB, False),
        ("DeepLabV3Plus", "tu-regnetx_002", DEEPLAB, True),
    ],
)
def test_plain_smp_opens_a_saved_segmenter_with_the_same_logits(
    arch, encoder, options, text, tmp_path
):
    model = build(arch, encoder, options, text=text)
    save(tmp_path / "segmenter", model)
    plain = smp.from_pretrained(str(tmp_path / "segmenter"))
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        logits = nn.functional.interpolate(plain(x), x.shape[-2:], mode="bilinear")
        torch.testing.assert_close(logits, model(x), rtol=1e-5, atol=1e-5)
    assert isinstance(plain.segmentation_head[0], nn.Conv2d)


@pytest.mark.parametrize("arch", sorted(set(smp.MODEL_ARCHITECTURES_MAPPING) - {"dpt"}))
def test_every_architecture_takes_text_and_answers_at_the_input_s_size(arch):
    text = torch.ones(11, 32 if arch == "linknet" else 64)  # 32 channels, always
    model = build_segmenter(arch=arch, encoder="resnet18", num_classes=11, options={}, text=text)
    height, width = 128, 128 + size_divisor(model)
    with torch.no_grad():
        logits = model.eval()(torch.zeros(1, 3, height, width))
    assert logits.shape == (1, 11, height, width)


def test_a_vision_transformer_sees_any_size_with_timm_s_option():
    options = {"dynamic_img_size": True, "decoder_intermediate_channels": [8, 8, 8, 8]}
    options |= {"decoder_fusion_channels": 8}
    model = build_segmenter(
        arch="dpt",
        encoder="tu-vit_tiny_patch16_224",
        num_classes=11,
        options=options,
        text=torch.ones(11, 8),
    )
    with torch.no_grad():
        assert model.eval()(torch.zeros(1, 3, 32, 64)).shape == (1, 11, 32, 64)


def test_saving_replaces_a_folder_keeps_the_model_and_gives_equal_bytes_twice(tmp_path):
    model = build("unet", "tu-regnetx_002", UNET, text=True)
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


def test_a_loaded_segmenter_knows_all_that_inference_needs(saved, capsys):
    segmenter = load_segmenter(saved)
    assert capsys.readouterr().out == ""
    assert not segmenter.model.training
    assert segmenter.classes == SPACE.names
    assert segmenter.palette.dtype == np.uint8
    assert np.array_equal(segmenter.palette, SPACE.palette)
    assert segmenter.mean == (0.485, 0.456, 0.406)
    assert segmenter.std == (0.229, 0.224, 0.225)
    assert segmenter.base_size == (64, 96)
    assert segmenter.stride == 32
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


def test_a_flipped_bit_of_the_weights_is_told_with_the_repair(copied):
    content = bytearray((copied / "model.safetensors").read_bytes())
    content[-3] ^= 1
    (copied / "model.safetensors").write_bytes(content)
    message = (
        r"model.safetensors is not the file that training wrote; if you .*, remove 'weights_.*; "
        r"run `dvc repro --force --single-item train` to make it again"
    )
    with pytest.raises(ValueError, match=message):
        load_segmenter(copied)
    about = json.loads((copied / "carb.json").read_text())
    del about["weights_sha256"]
    (copied / "carb.json").write_text(json.dumps(about))
    load_segmenter(copied)  # as the message says


def test_class_names_that_do_not_fit_the_weights_are_refused(copied):
    about = json.loads((copied / "carb.json").read_text())
    about["classes"].pop()
    (copied / "carb.json").write_text(json.dumps(about))
    with pytest.raises(ValueError, match=r"names 10 classes and config.json 11"):
        load_segmenter(copied)


@pytest.mark.filterwarnings(r"ignore:\s*!+ Mismatched keys:UserWarning")  # smp warns, then raises
def test_weights_of_another_shape_are_refused(copied):
    config = json.loads((copied / "config.json").read_text())
    (copied / "config.json").write_text(json.dumps(config | {"encoder_name": "resnet50"}))
    with pytest.raises(ValueError, match="is damaged"):
        load_segmenter(copied)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"arch": "unett"}, "segmenter.arch must be one of deeplabv3, .*, got 'unett'"),
        ({"encoder": "resnet19"}, "segmenter.encoder must be .* did you mean .*resnet18"),
        ({"encoder": "tu-regnetx_0022"}, "segmenter.encoder .* did you mean .*tu-regnetx_002"),
        ({"encoder": "?"}, "got '\\?'; smp's documentation lists them"),
        ({"options": {"stride": 8}}, "options: 'unet' does not take 'stride'; .*decoder_channels"),
        ({"options": {"classes": 3}}, "'unet' does not take 'classes'"),
        ({"options": {"upsampling": 4}}, "'upsampling' is set by the pipeline.*; remove it"),
        (
            {"arch": "deeplabv3", "options": {"decoder_aspp_separable": "no"}},
            "options.decoder_aspp_separable must be true or false, got 'no'",
        ),
        ({"options": {"decoder_channels": [8]}}, "do not fit together: .*5"),
        ({"arch": "linknet", "encoder": "mit_b0", "options": {}}, "do not fit together"),
        (
            {"text": torch.ones(11, 64)},
            r"decoder_channels must be \[32, 16, 16, 8, 64\] for .*got \[32, 16, 16, 8, 8\]",
        ),
        (
            {"text": torch.ones(11, 64), "arch": "deeplabv3", "options": DEEPLAB},
            "segmenter.options.decoder_channels must be 64 for .*'text'.*, got 16; write 64",
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
