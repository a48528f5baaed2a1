"""ONNX export: a segmenter as one file for ONNX Runtime, checked against PyTorch, with a card.

The normalisation is part of the graph, so that users pass the bytes of photos and cannot get mean
and deviation wrong.
"""

import copy
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.segmenter.card import model_card
from pipeline.segmenter.inference import Segmenter
from pipeline.segmenter.network import LIBRARY_ERRORS
from pipeline.system.files import atomic_path
from pipeline.system.text import error_text

try:
    import onnx
    import onnxruntime
    import onnxscript  # noqa: F401  torch.onnx needs it
    from onnxruntime.capi.onnxruntime_pybind11_state import Fail, InvalidArgument, RuntimeException
except ModuleNotFoundError:
    raise ValueError(
        "export needs onnx, onnxruntime and onnxscript: pip install -e '.[deploy]'"
    ) from None

log = logging.getLogger("carb")
MODEL, CARD = "model.onnx", "README.md"
INPUT, OUTPUT, METADATA_KEY = "photos", "logits", "carb"
RUNTIME_ERRORS = (Fail, InvalidArgument, RuntimeException)
MIN_AGREEMENT = 0.999  # share of pixels with the same class
# Strides of the example for tracing: unlike sides, so that no size is built into the graph.
TRACED = (12, 16)
OTHER_ARCH = "train another segmenter.arch, such as unet or deeplabv3"


class Difference(NamedTuple):
    """Difference between ONNX Runtime and PyTorch on images of one size."""

    size: tuple[int, int, int]  # (batch, height, width)
    logits: float  # largest absolute difference
    same: float  # share of pixels with the same class


class WithPreprocessing(nn.Module):
    """Photos ``[B, H, W, 3]`` uint8 RGB to logits ``[B, C, H, W]`` float32."""

    mean: Tensor
    std: Tensor

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        # A copy: the segmenter's own may be on a GPU and in another memory format.
        self.model = copy.deepcopy(segmenter.model).cpu().to(memory_format=torch.contiguous_format)
        for name in ("mean", "std"):
            value = torch.tensor(getattr(segmenter, name))[:, None, None]
            self.register_buffer(name, value)
        self.eval()

    def forward(self, photos: Tensor) -> Tensor:
        """Normalise the photos and run the network."""
        pixels = (photos.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        logits: Tensor = self.model(pixels)
        return logits


def export(
    segmenter: Segmenter, out: Path, *, metrics: Path | None, opset: int | None = None
) -> None:
    """Write ``model.onnx`` and its card, or nothing.

    Args:
        segmenter: the model.
        out: folder to write; an earlier export is replaced.
        metrics: ``metrics.json`` of the segmenter's evaluation, for the card; or None.
        opset: ONNX operator set; None: PyTorch's default.

    Raises:
        ValueError: the network cannot be exported, the exported file disagrees with it, or
            ``metrics`` is another file.
    """
    scores = None if metrics is None else read_metrics(metrics)
    with atomic_path(out) as draft:
        draft.mkdir()
        write_onnx(draft / MODEL, segmenter, opset=opset)
        found = compare_with_torch(draft / MODEL, segmenter)
        for one in found:
            batch, height, width = one.size
            log.info(
                "%d x %dx%d pixels: logits differ by at most %.1e, same class at %.3f %% of pixels",
                *(batch, width, height, one.logits, 100 * one.same),
            )
        check_agreement(found)
        card = model_card(segmenter, metrics=scores, onnx=True)
        (draft / CARD).write_text(card, "utf-8")
    log.info("wrote %s and %s to %s", MODEL, CARD, out)


def read_metrics(path: Path) -> dict[str, Any]:
    """The metrics that ``eval`` wrote.

    Raises:
        ValueError: the file is missing or another.
    """
    try:
        metrics = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"--metrics {path}: not readable ({error_text(error)}); give the metrics.json of "
            "`carb eval`"
        ) from None
    wanted = {"mIoU": float, "IoU": dict, "protocol": dict}
    if not isinstance(metrics, dict) or not all(
        isinstance(metrics.get(name), kind) for name, kind in wanted.items()
    ):
        raise ValueError(
            f"--metrics {path}: must contain {', '.join(wanted)}; give the metrics.json of "
            "`carb eval`"
        )
    return metrics


def write_onnx(path: Path, segmenter: Segmenter, *, opset: int | None = None) -> None:
    """Write the network: photos ``[batch, height, width, 3]`` uint8 RGB, both sides multiples of
    the stride, to logits ``[batch, classes, height, width]``.

    ``metadata_props`` holds JSON under the key ``carb``: classes, colours, stride, base size and
    normalisation.

    Args:
        path: file to write.
        segmenter: the model.
        opset: ONNX operator set; None: PyTorch's default.

    Raises:
        ValueError: PyTorch cannot export this network, or not with this operator set.
    """
    name = type(segmenter.model).__name__
    for module in segmenter.model.modules():
        if isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size not in (1, (1, 1)):
            # torch 2.14 exports it for the example's size only.
            raise ValueError(
                f"{name} is not exportable: PyTorch fixes its pooling to one image size; "
                f"{OTHER_ARCH}"
            )
    example = torch.zeros(2, *(n * segmenter.stride for n in TRACED), 3, dtype=torch.uint8)
    free = torch.export.Dim.AUTO
    try:
        # torch.onnx.export alone would also try its slower ways to trace, minutes each.
        traced = torch.export.export(
            WithPreprocessing(segmenter), (example,), dynamic_shapes=({0: free, 1: free, 2: free},)
        )
        with _no_library_log():
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
        raise ValueError(
            f"torch {torch.__version__} cannot export this {name} ({error_text(error)}); "
            f"{OTHER_ARCH}"
        ) from error
    assert made is not None
    model = _with_metadata(made.model_proto, segmenter)
    if opset is not None:
        if found := [one.version for one in model.opset_import if one.version != opset]:
            raise ValueError(
                f"--opset {opset}: the lowest that torch {torch.__version__} can write for this "
                f"network is opset {found[0]}; use that or a higher one"
            )
        model.ir_version = onnx.helper.find_min_ir_version_for(model.opset_import)
    onnx.save(model, path)


@contextmanager
def _no_library_log() -> Iterator[None]:
    """Silence the library's log; a failed conversion raises one error."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _with_metadata(model: "onnx.ModelProto", segmenter: Segmenter) -> "onnx.ModelProto":
    """Replace PyTorch's traces of source files by the metadata that users need."""
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
    graph.ClearField("value_info")  # sizes of intermediate values, under arbitrary names
    about = {
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
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(about, sort_keys=True)})
    return model


def compare_with_torch(path: Path, segmenter: Segmenter) -> list[Difference]:
    """Compare the file with the segmenter on generated images of two sizes.

    Raises:
        ValueError: ONNX Runtime cannot run it.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised, below
    whole, found = WithPreprocessing(segmenter), []
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for size in checked_sizes(segmenter):
            photos = test_images(size)
            ours = session.run([OUTPUT], {INPUT: photos.numpy()})[0]
            with torch.inference_mode():
                theirs = whole(photos).numpy()
            same = float(np.mean(ours.argmax(axis=1) == theirs.argmax(axis=1)))
            found.append(Difference(size, float(np.abs(ours - theirs).max()), same))
    except RUNTIME_ERRORS as error:
        raise ValueError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run the exported file "
            f"({error_text(error)}); use a lower --opset, or {OTHER_ARCH}"
        ) from error
    return found


def checked_sizes(segmenter: Segmenter) -> list[tuple[int, int, int]]:
    """Batch, height and width: the training size, and two smaller images of another shape."""
    stride = segmenter.stride
    tall, wide = (max(2, round(side / stride)) for side in segmenter.base_size)
    counts = [(1, tall, wide), (2, -(-tall // 2) + 1, -(-wide // 2))]
    return [(batch, high * stride, across * stride) for batch, high, across in counts]


def test_images(size: tuple[int, int, int]) -> Tensor:
    """Smooth random blots of all colours, ``[B, H, W, 3]`` uint8; deterministic."""
    batch, height, width = size
    blots = torch.rand(batch, 3, 9, 13, generator=torch.Generator().manual_seed(height + width))
    soft = F.interpolate(blots, (height, width), mode="bicubic", align_corners=False)
    return (soft.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).contiguous()


def check_agreement(found: list[Difference]) -> None:
    """Refuse a file that does not predict what the segmenter predicts.

    Raises:
        ValueError: too many pixels have another class at one of the sizes.
    """
    worst = min(found, key=lambda one: one.same)
    if worst.same < MIN_AGREEMENT:
        raise ValueError(
            f"the exported file predicts the segmenter's class at {100 * worst.same:.2f} % of "
            f"pixels of {worst.size[2]}x{worst.size[1]} images, fewer than "
            f"{100 * MIN_AGREEMENT:g} %, and was discarded; {OTHER_ARCH}"
        )
