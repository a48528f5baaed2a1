"""Forward passes on a GPU: devices with fake CUDA tensors, values on a real GPU only.

torch's FakeTensorMode computes shapes, types and devices, and raises an error where tensors of two
devices meet; no GPU is needed. It knows no backward pass, pinned memory, CUDA generator or Fabric.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

import pipeline.evaluation.segmenter
from pipeline.carb import CarbLoss
from pipeline.clip.dense import load_clip
from pipeline.clip.levels import fused_logits, level_logits
from pipeline.clip.windows import magnified
from pipeline.config.clip import FusedParams, LevelParams
from pipeline.segmenter.inference import Segmenter, TestTimeOptions, ensemble_logits
from pipeline.segmenter.network import build_segmenter
from pipeline.training.batch_loss import BatchLoss
from pipeline.training.crops import Batch, SampledLogits
from pipeline.views import Box
from tests.helpers.clip_folder import RESNET, VIT, random_clip
from tests.helpers.small_training import CLASSES, Net
from tests.helpers.tiny_store import store_of_logits

Compute = Callable[[torch.device], list[Tensor]]
SIZE = (64, 96)
LEVELS = {
    "global": LevelParams(zoom=1.0, window=(64, 96), overlap=0.5),  # enough patches for repair
    "local": LevelParams(zoom=2.0, window=(96, 64), overlap=0.25),
}


def random_photo(height: int, width: int) -> Image.Image:
    noise = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(noise)


def clip_levels(folder: Path) -> Compute:
    """Logits of the levels by several towers and dense modes, and the fused level."""
    random_clip(folder / "vit", VIT)
    vit, photo = f"local-dir:{folder}/vit", random_photo(96, 160)
    clips = [
        random_clip(folder / "resnet", RESNET),
        load_clip(vit, None, repair=True, window_share=0.4),
        load_clip(vit, None, dense="naclip", window_share=0.4),
    ]

    def compute(device: torch.device) -> list[Tensor]:
        found = []
        for clip in clips:
            clip.to(device)
            text = clip.embed_text([["car"], ["sky", "heaven"]], ["a photo of a {}."])
            grids = [
                level_logits(magnified(photo, level, patch_size=clip.patch_size), level, clip, text)
                for level in LEVELS.values()
            ]
            found += [
                *grids,
                fused_logits(photo, grids, FusedParams(size=(48, 80), stride=2, radius=3)),
            ]
        return found

    return compute


def training_loss(_: Path) -> Compute:
    """Terms of the loss with CARB, class weights, Dice and adaptive lambda."""
    draw = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    network = build_segmenter(
        arch="deeplabv3",
        encoder="resnet18",
        num_classes=CLASSES,
        options={"decoder_channels": 32, "encoder_output_stride": 8},
        text=torch.randn(CLASSES, 32, generator=draw),
    ).eval()  # without dropout

    def cut(height: int, width: int) -> SampledLogits:
        rows, columns = (torch.linspace(0, 3, side).repeat(2, 1) for side in (height, width))
        return SampledLogits(torch.randn(2, CLASSES, 4, 4, generator=draw).half(), rows, columns)

    images = torch.randint(0, 256, (2, 3, *SIZE), dtype=torch.uint8, generator=draw)
    labels = torch.tensor([[True, True, False], [True, True, True]])
    boxes = [Box(0, 0, 32, 48), Box(32, 48, 32, 48)]
    batch = Batch(images, labels, cut(*SIZE), cut(32, 48), boxes, ["a", "b"])

    def compute(device: torch.device) -> list[Tensor]:
        weights = torch.tensor([1.0, 2.0, 3.0])
        carb = CarbLoss(tau=0.3, warmup_steps=0, class_weights=weights)
        loss = BatchLoss(carb, dice_weight=1.0).to(device)
        terms = loss(batch.to(device), network.to(device))
        return [term.detach() for term in vars(terms).values()]

    return compute


def evaluation(folder: Path) -> Compute:
    """Predictions of an ensemble with all test-time augmentation, and CLIP's of each level."""
    network = Net().eval()
    half, palette = (0.5, 0.5, 0.5), np.zeros((CLASSES, 3), np.uint8)
    one = Segmenter(network, list("abc"), palette, half, half, SIZE, 8, {})
    both = (one, replace(one, base_size=(96, 128)))
    options = TestTimeOptions((1.0, 1.5), flip=True, window=SIZE, edge_radius=3)
    logits = {
        level: {"a": np.random.default_rng(0).normal(size=(CLASSES, *grid))}
        for level, grid in {"global": (4, 6), "local": (8, 12)}.items()
    }
    store = store_of_logits(folder / "draft", logits, {"a": (100, 150)})

    def compute(device: torch.device) -> list[Tensor]:
        network.to(device)
        logits = ensemble_logits(both, [random_photo(100, 150)], (100, 150), options)[0]
        compared = pipeline.evaluation.segmenter._vote_and_levels
        return [logits, *compared(logits, np.array([True, False, True]), store, "a")]

    return compute


@pytest.mark.parametrize("work", [clip_levels, training_loss, evaluation])
@torch.no_grad()
def test_all_tensors_are_on_the_gpu(
    work: Callable[[Path], Compute], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compute = work(tmp_path)
    wanted = compute(torch.device("cpu"))
    monkeypatch.setattr(Tensor, "pin_memory", lambda tensor: tensor)
    with FakeTensorMode(allow_non_fake_inputs=True):
        found = compute(torch.device("cuda"))
    assert [(t.shape, t.dtype) for t in found] == [(t.shape, t.dtype) for t in wanted]
    assert {tensor.device.type for tensor in found} == {"cuda"}


@pytest.mark.gpu
@pytest.mark.parametrize("work", [clip_levels, training_loss, evaluation])
@torch.no_grad()
def test_a_gpu_computes_what_the_cpu_does(
    work: Callable[[Path], Compute], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.backends.cudnn.allow_tf32", False)
    compute = work(tmp_path)
    for wanted, found in zip(
        *(compute(torch.device(name)) for name in ("cpu", "cuda")), strict=True
    ):
        if wanted.is_floating_point():
            torch.testing.assert_close(found.cpu(), wanted, rtol=1e-3, atol=1e-3)
        else:
            assert (found.cpu() == wanted).float().mean() > 0.99
