"""ONNX export: a segmenter as one file for ONNX Runtime, checked against PyTorch, with a card.

Normalisation is part of the graph, so that users pass uint8 photos as they are.
"""

import copy
import json
import logging
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from pipeline.segmenter.card import model_card
from pipeline.segmenter.inference import Segmenter
from pipeline.segmenter.network import LIBRARY_ERRORS
from pipeline.system.files import atomic_path
from pipeline.system.text import error_text
from pipeline.views import fitted_size

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
FEWEST_RUNS, MOST_RUNS, ENOUGH_S = 3, 20, 2.0  # of the measured latency
MIN_AGREEMENT = 0.999  # share of pixels with the same class
# Height and width of the traced example in strides; equal sides would be tied in the graph.
TRACED = (12, 16)
OTHER_ARCH = "train another segmenter.arch, such as unet or deeplabv3"


class WithPreprocessing(nn.Module):
    """Photos ``[B, H, W, 3]`` uint8 RGB to logits ``[B, C, H, W]`` float32, on the CPU."""

    mean: Tensor
    std: Tensor

    def __init__(self, segmenter: Segmenter) -> None:
        super().__init__()
        # A copy, because the segmenter may be on a GPU and in another memory format.
        self.model = copy.deepcopy(segmenter.model).cpu().to(memory_format=torch.contiguous_format)
        self.register_buffer("mean", torch.tensor(segmenter.mean)[:, None, None])
        self.register_buffer("std", torch.tensor(segmenter.std)[:, None, None])
        self.eval()

    def forward(self, photos: Tensor) -> Tensor:
        """Normalise the photos and run the network."""
        pixels = (photos.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
        logits: Tensor = self.model(pixels)
        return logits


def export(
    segmenter: Segmenter, out: Path, *, metrics: Path | None, opset: int | None = None
) -> None:
    """Write ``model.onnx`` and its card atomically.

    Args:
        segmenter: the model.
        out: folder to write; an earlier export is replaced.
        metrics: ``metrics.json`` of the segmenter's evaluation, for the card; or None.
        opset: ONNX operator set; None: PyTorch's default.

    Raises:
        ValueError: the network cannot be exported, the exported file disagrees with it, or
            ``metrics`` is not such a file.
    """
    scores = None if metrics is None else read_metrics(metrics)
    scored = (scores or {}).get("network")  # only of a training with snapshots
    if isinstance(scored, dict) and scored.get("sha256") != segmenter.digest:
        raise ValueError(
            f"--metrics {metrics}: metrics of another network, {scored.get('folder')}; name that "
            "folder as --model"
        )
    with atomic_path(out) as draft:
        draft.mkdir()
        write_onnx(draft / MODEL, segmenter, opset=opset)
        check_against_torch(draft / MODEL, segmenter)
        flops, (height, width) = count_flops(segmenter), network_size(segmenter)
        log.info(
            "one image of %dx%d pixels: %.3g GFLOPs, %.3g ms with ONNX Runtime on this CPU",
            *(width, height, flops / 1e9, 1e3 * latency_s(draft / MODEL, segmenter)),
        )
        card = model_card(segmenter, metrics=scores, onnx=True, flops=flops)
        (draft / CARD).write_text(card, "utf-8")
    log.info("wrote %s and %s to %s", MODEL, CARD, out)


def read_metrics(path: Path) -> dict[str, Any]:
    """Read the ``metrics.json`` that ``eval`` wrote; ValueError if it is not such a file."""
    hint, wanted = "give the metrics.json of `carb eval`", ("mIoU", "IoU", "protocol")
    try:
        metrics = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"--metrics {path}: not readable ({error_text(error)}); {hint}") from None
    kinds = [type(metrics.get(name)) for name in wanted] if isinstance(metrics, dict) else []
    if kinds != [float, dict, dict]:
        raise ValueError(f"--metrics {path}: must contain {', '.join(wanted)}; {hint}")
    return dict(metrics)


def write_onnx(path: Path, segmenter: Segmenter, *, opset: int | None = None) -> None:
    """Write the network: photos ``[batch, height, width, 3]`` uint8 RGB, both sides multiples of
    the stride, to logits ``[batch, classes, height, width]`` float32.

    ``metadata_props`` contains JSON under the key ``carb``: classes, colours, stride, base size and
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
            # torch 2.14 exports it for the size of the example only.
            raise ValueError(
                f"{name} is not exportable: PyTorch fixes its pooling to one image size; "
                f"{OTHER_ARCH}"
            )
    example = torch.zeros(2, *(n * segmenter.stride for n in TRACED), 3, dtype=torch.uint8)
    sizes = dict.fromkeys(range(3), torch.export.Dim.AUTO)
    try:
        # torch.onnx.export alone would also try slower ways to trace, which take minutes.
        traced = torch.export.export(
            WithPreprocessing(segmenter), (example,), dynamic_shapes=(sizes,)
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
    """Silence the libraries' logs; a failed conversion raises an error anyway."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        yield
    finally:
        logging.disable(before)


def _with_metadata(model: "onnx.ModelProto", segmenter: Segmenter) -> "onnx.ModelProto":
    """Replace PyTorch's traces of source files by metadata for users, and name the free axes."""
    graph = model.graph
    values = (*graph.input, *graph.output)
    for part in (model, graph, *graph.node, *graph.initializer):
        part.ClearField("metadata_props")
        part.ClearField("doc_string")
    for value in values:
        value.ClearField("metadata_props")
    graph.ClearField("value_info")  # sizes of intermediate values, under arbitrary names
    for value, axes in zip((graph.input[0], graph.output[0]), ((0, 1, 2), (0, 2, 3)), strict=True):
        for axis, name in zip(axes, ("batch", "height", "width"), strict=True):
            value.type.tensor_type.shape.dim[axis].dim_param = name
    mean, std = list(segmenter.mean), list(segmenter.std)
    about = {
        "classes": segmenter.classes,
        "colours": segmenter.palette.tolist(),
        "base_size": list(segmenter.base_size),
        "stride": segmenter.stride,
        "normalisation": {"in_graph": True, "mean": mean, "std": std},
    }
    onnx.helper.set_model_props(model, {METADATA_KEY: json.dumps(about, sort_keys=True)})
    return model


def network_size(segmenter: Segmenter) -> tuple[int, int]:
    """Height and width in pixels of the network's input for an image of the base size."""
    base = segmenter.base_size
    return fitted_size(base, base_size=base, stride=segmenter.stride)


def count_flops(segmenter: Segmenter) -> int:
    """Floating-point operations for one image of the base size.

    Convolutions, matrix products and attention, two operations per multiply-add.
    """
    counter = FlopCounterMode(display=False)
    with counter, torch.inference_mode():
        WithPreprocessing(segmenter)(_test_images(1, *network_size(segmenter)))
    return int(counter.get_total_flops())


def latency_s(path: Path, segmenter: Segmenter) -> float:
    """Median time in seconds of the exported file for one image of the base size."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    photos = {INPUT: _test_images(1, *network_size(segmenter)).numpy()}
    session.run([OUTPUT], photos)  # allocates memory
    times: list[float] = []
    while len(times) < MOST_RUNS and (len(times) < FEWEST_RUNS or sum(times) < ENOUGH_S):
        start = time.perf_counter()
        session.run([OUTPUT], photos)
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def check_against_torch(path: Path, segmenter: Segmenter) -> None:
    """Compare the file with the segmenter on generated images of two sizes; log the differences.

    Raises:
        ValueError: ONNX Runtime cannot run the file, or too many pixels get another class.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # errors are raised below
    reference, stride = WithPreprocessing(segmenter), segmenter.stride
    tall, wide = (max(2, round(side / stride)) for side in segmenter.base_size)
    # The training size, and a batch of smaller images of another shape.
    sizes = ((1, tall, wide), (2, -(-tall // 2) + 1, -(-wide // 2)))
    try:
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        for batch, rows, columns in sizes:
            photos = _test_images(batch, rows * stride, columns * stride)
            found = session.run([OUTPUT], {INPUT: photos.numpy()})[0]
            with torch.inference_mode():
                wanted = reference(photos).numpy()
            same = float(np.mean(found.argmax(axis=1) == wanted.argmax(axis=1)))
            size = f"{columns * stride}x{rows * stride}"
            log.info(
                "%d x %s pixels: logits differ by at most %.1e, same class at %.3f %% of pixels",
                *(batch, size, float(np.abs(found - wanted).max()), 100 * same),
            )
            if same < MIN_AGREEMENT:
                raise ValueError(
                    f"the exported file predicts the segmenter's class at {100 * same:.2f} % of "
                    f"pixels of {size} images, fewer than {100 * MIN_AGREEMENT:g} %, and was "
                    f"discarded; {OTHER_ARCH}"
                )
    except (Fail, InvalidArgument, RuntimeException) as error:
        raise ValueError(
            f"ONNX Runtime {onnxruntime.__version__} cannot run the exported file "
            f"({error_text(error)}); use a lower --opset, or {OTHER_ARCH}"
        ) from error


def _test_images(batch: int, height: int, width: int) -> Tensor:
    """Smooth random blots of all colours, ``[B, H, W, 3]`` uint8; deterministic."""
    blots = torch.rand(batch, 3, 9, 13, generator=torch.Generator().manual_seed(height + width))
    soft = F.interpolate(blots, (height, width), mode="bicubic", align_corners=False)
    return (soft.clamp(0, 1) * 255).byte().permute(0, 2, 3, 1).contiguous()
