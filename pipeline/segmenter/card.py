"""Model card of a segmenter: README.md for the Hugging Face Hub, rendered from `card.md.j2`."""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.segmenter.inference import Segmenter
from pipeline.system.text import table_cell

Metrics = dict[str, Any]
DEMO_CLIP = "local-dir:demo/clip"
DEMO_ENCODERS = {"none", "clip", "demo/encoder.safetensors"}


def model_card(
    segmenter: Segmenter, *, metrics: Metrics | None, onnx: bool, flops: int | None = None
) -> str:
    """Render the model card; deterministic.

    Args:
        segmenter: the model; its ``extra`` describes the training.
        metrics: content of the ``metrics.json`` of its evaluation, or None.
        onnx: the card describes an ONNX file, not a folder for smp.
        flops: floating-point operations for one image of the size that the card names.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters["table_cell"] = table_cell
    (height, width), stride = segmenter.base_size, segmenter.stride
    extra, name = segmenter.extra, type(segmenter.model).__name__
    # Only the drawn scenes and their CLIP are under this project's licence.
    own_licence = (
        extra.get("dataset") == "demo"
        and extra.get("clip") == DEMO_CLIP
        and str(extra.get("encoder_weights")) in DEMO_ENCODERS
    )
    carb = extra.get("carb_steps") != 0  # missing in segmenters of earlier versions
    return environment.get_template("card.md.j2").render(
        front=_front(segmenter, metrics, onnx=onnx, own_licence=own_licence, carb=carb),
        name=name,
        classes=segmenter.classes,
        palette=segmenter.palette.tolist(),
        carb=carb,
        onnx=onnx,
        flops=flops,
        dpt=name == "DPT",  # smp 0.6.0 has no option for its upsampling
        mean=list(segmenter.mean),
        std=list(segmenter.std),
        height=height,
        width=width,
        stride=stride,
        rows=max(1, round(height / stride)) * stride,
        columns=max(1, round(width / stride)) * stride,
        training=_training(segmenter),
        metrics=metrics,
        own_licence=own_licence,
    )


def _front(
    segmenter: Segmenter, metrics: Metrics | None, *, onnx: bool, own_licence: bool, carb: bool
) -> str:
    """The YAML front matter for the Hub."""
    dataset, results = str(segmenter.extra.get("dataset", "unknown")), None
    if metrics is not None:
        results = [
            EvalResult(
                task_type="image-segmentation",
                dataset_type=dataset,
                dataset_name=str(metrics["protocol"].get("data", dataset)),
                metric_type="mean_iou",
                metric_name="mIoU",
                metric_value=round(metrics["mIoU"], 4),
            )
        ]
    tags = ["semantic-segmentation", "weak-supervision", "driving-scenes", "clip"]
    data = ModelCardData(
        license="apache-2.0" if own_licence else "other",
        license_name=None if own_licence else "terms-of-the-training-data",
        library_name="onnx" if onnx else "segmentation-models-pytorch",
        pipeline_tag="image-segmentation",
        tags=[*tags, "carb"] if carb else tags,
        datasets=[dataset],
        model_name=f"carb-wsss {type(segmenter.model).__name__}",
        eval_results=results,
    )
    return str(data.to_yaml())


def _steps(extra: dict[str, Any]) -> Any:
    """Steps of the training; of a snapshot, which of them."""
    steps, total = extra.get("steps"), extra.get("snapshot_of")
    return steps if total is None else f"snapshot after {steps} of {total}"


def _training(segmenter: Segmenter) -> dict[str, Any]:
    """Facts about the training, by title; None if unknown."""
    extra = segmenter.extra
    return {
        "Data set": extra.get("dataset"),
        "Training photos": extra.get("photos"),
        "Labels": "image-level only",
        "Pseudo-masks made by CLIP": extra.get("clip"),
        "Weights of that CLIP, SHA-256": extra.get("clip_sha256"),
        "Architecture": type(segmenter.model).__name__,
        "Encoder": extra.get("encoder"),
        "Encoder's first weights": extra.get("encoder_weights"),
        "Size of photos, height x width": "{} x {}".format(*segmenter.base_size),
        "Steps": _steps(extra),
        "Precision": extra.get("precision"),
    } | dict(extra.get("settings") or {})
