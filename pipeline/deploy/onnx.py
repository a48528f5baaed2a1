"""A segmenter as an ONNX file that needs nothing of this project, nor torch.

The normalisation is in the graph: whoever uses the file hands it the bytes of photos, and cannot
get mean and deviation wrong.
"""

import copy
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import torch
import torch.nn.functional as F
from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException
from torch import Tensor, nn

from pipeline.segmenter.inference import Segmenter
from pipeline.segmenter.network import LIBRARY_ERRORS
from pipeline.system.text import error_text

INPUT, OUTPUT, ABOUT_KEY = "photos", "logits", "carb"
AXES = ("batch", "height", "width")
AGREE = 0.999  # least share of pixels of the same class
# Strides of the example that the graph is traced with: no special size, so that none is built in.
TRACED = (12, 16)


class Difference(NamedTuple):
    """How far ONNX Runtime is from torch on photos of one size ``(batch, height, width)``."""

    size: tuple[int, int, int]
    logits: float  # largest absolute difference
    same: float  # share of pixels of the same class


class WithPreprocessing(nn.Module):
    """Photos ``[B, H, W, 3]`` uint8 RGB to logits ``[B, C, H, W]`` float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        # Apart from the segmenter's own, which may lie on a GPU and in another memory order.
        self.model = copy.deepcopy(segmenter.model).cpu().to(memory_format=torch.contiguous_format)
        for name in ("mean", "std"):
            value = torch.tensor(getattr(segmenter, name))[:, None, None]
            self.register_buffer(name, value)

    def forward(self, photos: Tensor) -> Tensor:
        """Normalise, and ask the network."""
        pixels = (photos.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        logits: Tensor = self.model(pixels)
        return logits


class EvenPool(nn.Module):
    """Adaptive average pooling as two products of matrices, at any size of the input.

    ``nn.AdaptiveAvgPool2d`` is exported for the size of the example only (torch 2.14); PSPNet and
    UPerNet pool so. Cell i of n holds the places floor(i L / n) to ceil((i + 1) L / n), the last
    excluded.

    Args:
        size: ``(height, width)`` of the output.
    """

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    def forward(self, features: Tensor) -> Tensor:
        """Pool ``[B, C, H, W]`` to ``[B, C, *size]``."""
        rows = self._shares(features.shape[-2], self.size[0], features)
        columns = self._shares(features.shape[-1], self.size[1], features)
        return rows @ features @ columns.T

    @staticmethod
    def _shares(length: int, cells: int, like: Tensor) -> Tensor:
        """How much each place counts in each cell, ``[cells, length]``."""
        place = torch.arange(length, device=like.device)
        cell = torch.arange(cells, device=like.device)[:, None]
        first, end = cell * length // cells, ((cell + 1) * length + cells - 1) // cells
        inside = ((place >= first) & (place < end)).to(like.dtype)
        return inside / inside.sum(dim=1, keepdim=True)


def exportable(segmenter: Segmenter) -> WithPreprocessing:
    """The network with its normalisation, all of it such that any size can be exported."""
    whole = WithPreprocessing(segmenter)
    for name, module in list(whole.named_modules()):
        if isinstance(module, nn.AdaptiveAvgPool2d):
            size: Any = module.output_size
            height, width = (size, size) if isinstance(size, int) else size
            if (height, width) != (1, 1):
                whole.set_submodule(name, EvenPool((height, width)))
    return whole.eval()


def write_onnx(path: Path, segmenter: Segmenter, *, opset: int | None = None) -> None:
    """Write the network as one file: photos ``[batch, height, width, 3]`` uint8 RGB, the sides
    multiples of the stride, to logits ``[batch, classes, height, width]``.

    ``metadata_props`` holds JSON under the key ``carb``: classes, colours, stride, base size,
    normalisation.

    Args:
        path: file to write.
        segmenter: the model.
        opset: version of ONNX's operators, for an older runtime; None: torch's usual one.

    Raises:
        ValueError: torch cannot export this network, or not with these operators.
    """
    height, width = (count * segmenter.stride for count in TRACED)
    example = torch.zeros(2, height, width, 3, dtype=torch.uint8)
    free = torch.export.Dim.AUTO
    try:
        # Exported at once, torch.onnx falls back on other ways to trace, minutes each.
        traced = torch.export.export(
            exportable(segmenter), (example,), dynamic_shapes=({0: free, 1: free, 2: free},)
        )
        with _quietly():
            made = torch.onnx.export(
                traced,
                (),
                dynamo=True,
                input_names=[INPUT],
                output_names=[OUTPUT],
                opset_version=opset,
                verbose=False,
            )
    except LIBRARY_ERRORS as error:
        name = type(segmenter.model).__name__
        raise ValueError(
            f"torch {torch.__version__} cannot export this {name} ({error_text(error)}); train "
            "another segmenter.arch, such as unet or deeplabv3"
        ) from error
    assert made is not None
    model = _without_traces(made.model_proto, segmenter)
    if opset is not None:
        if found := [one.version for one in model.opset_import if one.version != opset]:
            raise ValueError(
                f"--opset {opset}: torch {torch.__version__} can write this network with opset "
                f"{found[0]} at the lowest; take that or a higher one"
            )
        model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    onnx.save(model, path)


@contextmanager
def _quietly() -> Iterator[None]:
    """Without the library's log: a conversion that fails is told in a sentence."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _without_traces(model: onnx.ModelProto, segmenter: Segmenter) -> onnx.ModelProto:
    """Put in what a user must know, and take out where in whose files each operation came from."""
    graph = model.graph
    for part in (model, graph, *graph.node, *graph.value_info, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for value in (*graph.input, *graph.output):
        value.ClearField("metadata_props")
    place = {0: "batch", 1: "height", 2: "width"}, {0: "batch", 2: "height", 3: "width"}
    for value, names in zip((graph.input[0], graph.output[0]), place, strict=True):
        for axis, name in names.items():
            value.type.tensor_type.shape.dim[axis].dim_param = name
    graph.ClearField("value_info")  # sizes in between, by names that torch numbers as it likes
    about = json.dumps(described(segmenter), sort_keys=True)
    onnx.helper.set_model_props(model, {ABOUT_KEY: about})
    return model


def described(segmenter: Segmenter) -> dict[str, Any]:
    """What a user of the file must know, as JSON values."""
    return {
        "classes": segmenter.classes,
        "colours": segmenter.palette.tolist(),
        "base_size": list(segmenter.base_size),
        "stride": segmenter.stride,
        "normalisation": {
            "in_graph": True,
            "mean": list(segmenter.mean),
            "std": list(segmenter.std),
        },
    }


def compare_with_torch(path: Path, segmenter: Segmenter) -> list[Difference]:
    """Compare the file with the segmenter itself, on made-up photos of several sizes.

    Raises:
        ValueError: ONNX Runtime cannot run it at one of the sizes.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is told in a sentence, below
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except (Fail, InvalidArgument, RuntimeException) as error:
        raise ValueError(
            f"ONNX Runtime {onnxruntime.__version__} does not open the exported file "
            f"({error_text(error)}); take a lower --opset, or another segmenter.arch"
        ) from error
    whole, found = WithPreprocessing(segmenter).eval(), []
    for size in checked_sizes(segmenter):
        photos = test_images(size)
        try:
            ours = session.run([OUTPUT], {INPUT: photos.numpy()})[0]
        except (Fail, InvalidArgument, RuntimeException) as error:
            raise ValueError(
                f"the exported file does not run on photos of {size[2]}x{size[1]} pixels "
                f"({error_text(error)}); train another segmenter.arch, such as unet or deeplabv3"
            ) from error
        with torch.inference_mode():
            theirs = whole(photos).numpy()
        same = float(np.mean(ours.argmax(axis=1) == theirs.argmax(axis=1)))
        found.append(Difference(size, float(np.abs(ours - theirs).max()), same))
    return found


def checked_sizes(segmenter: Segmenter) -> list[tuple[int, int, int]]:
    """Batch, height and width: the size of training, larger, smaller, and upright."""
    stride = segmenter.stride
    tall, wide = (max(2, round(side / stride)) for side in segmenter.base_size)
    counts = [(1, tall, wide), (2, tall + 1, wide + 3), (3, -(-tall // 2), -(-wide // 2))]
    counts.append((1, wide - 1, tall))
    return [(batch, high * stride, across * stride) for batch, high, across in counts]


def test_images(size: tuple[int, int, int]) -> Tensor:
    """Soft blots of all colours, ``[B, H, W, 3]`` uint8, the same each time."""
    batch, height, width = size
    blots = torch.rand(batch, 3, 9, 13, generator=torch.Generator().manual_seed(height + width))
    soft = F.interpolate(blots, (height, width), mode="bicubic", align_corners=False)
    return (soft.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).contiguous()
