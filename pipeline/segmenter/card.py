"""The card of a segmenter, README.md in the format of the Hugging Face Hub: what it is, what it
learned from, how good it is and what it is not for."""

from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from pipeline.segmenter.inference import Segmenter
from pipeline.system.text import table_cell

Figures = dict[str, Any]
PAPER = "Weakly Supervised Semantic Segmentation for Driving Scenes"
DEMO_CLIP = "local-dir:demo/clip"
DEMO_ENCODERS = {"none", "clip", "demo/encoder.safetensors"}
# The drawn scenes, their CLIP and this code are ours to license; others' photos and CLIPs are not.
OURS, OTHERS = "apache-2.0", "other"
LIBRARY = "segmentation-models-pytorch"

USE_SMP = """```python
import segmentation_models_pytorch as smp
import torch

model = smp.from_pretrained("path/of/this/folder").eval(){head}
images = torch.zeros(1, 3, {rows}, {columns})  # RGB in 0..1, less mean, divided by std
logits = torch.nn.functional.interpolate(model(images), images.shape[-2:], mode="bilinear")
```

Input: RGB photos in 0..1, less `mean` {mean}, divided by `std`
{std}, resized to fit {height} x {width} pixels (height x width),
both multiples of {stride}. Output: one map of logits a class; by itself the network may answer at a
fourth or an eighth of the input's size, as DeepLabV3 does: the last line brings logits to the
input's size, as training did (bilinear, `align_corners=False`). `carb.json` holds the class names,
their colours, `mean` and `std`. With this project, for photos of any size:

```python
from pipeline.segmenter import load_segmenter

mask = load_segmenter("path/of/this/folder")("photo.jpg")  # [H, W] of classes
```"""
# smp's DPT has no option for it (0.6.0)
DPT_HEAD = "\nmodel.segmentation_head.upsampling_factor = 1  # else with align_corners=True"
USE_ONNX = """```python
import json
import numpy as np, onnxruntime
from PIL import Image, ImageOps
session = onnxruntime.InferenceSession("model.onnx")
about = json.loads(session.get_modelmeta().custom_metadata_map["carb"])
photo = ImageOps.exif_transpose(Image.open("photo.jpg")).convert("RGB")
fit = min(about["base_size"][0] / photo.height, about["base_size"][1] / photo.width)
size = [max(1, round(side * fit / about["stride"])) * about["stride"] for side in photo.size]
logits = session.run(None, {"photos": np.asarray(photo.resize(size, 2))[None]})[0]
mask = Image.fromarray(logits[0].argmax(0).astype(np.uint8)).resize(photo.size, 0)
```

Input `photos`: uint8 RGB, `[batch, height, width, 3]`, both sides multiples of {stride}; the
normalisation is part of the file (mean {mean} and std
{std} of 0..1). Trained on photos that fit {height} x {width} pixels (height
x width). Output `logits`: `[batch, {count}, height, width]` float32. The JSON under the key `carb`
of the file's metadata holds classes, colours, stride and base size."""
CARD = """---
{front}
---
# {name}, {count} classes

Names the class of each pixel of a driving scene. It learned from image-level labels alone ("this
photo has a road, a car, a rider"): CLIP turned them into pseudo-masks, and training {method}
turned those into this network. No human mask was shown to it.

## Use

{use}

## Data and training

{training}

## Figures

{figures}

## Classes

| index | class | colour (RGB) |{score}
|---|---|---|{score_line}
{classes}

## Intended use and limits

For research on weak supervision, and for a first look at street scenes like those it was trained
on. Not for decisions on which anybody's safety depends, such as driving.
Learned from pseudo-masks, it is weak where CLIP is: rare classes, thin and small things (poles,
signs, riders), borders between classes, and things that always occur together. Photos of other
countries, cameras, weather or hours than the training's make it worse, and its probabilities are
not calibrated.

## Licence

{licence}

## Citation

```bibtex
@inproceedings{{kim2024weakly,
  title = {{{paper}}},
  author = {{Kim, Dongseob and Lee, Seungho and Choe, Junsuk and Shim, Hyunjung}},
  booktitle = {{AAAI Conference on Artificial Intelligence}},
  year = {{2024}},
  note = {{arXiv:2312.13646}}
}}
```
"""


def card_of(segmenter: Segmenter, *, figures: Figures | None, onnx: bool) -> str:
    """The text of the card; equal input gives equal text.

    Args:
        segmenter: the model; its ``extra`` tells of the training what is known.
        figures: what its evaluation wrote, or None.
        onnx: the card stands beside an ONNX file, and not beside smp's.
    """
    height, width = segmenter.base_size
    count, own = len(segmenter.classes), _ours(segmenter)
    use = (USE_ONNX if onnx else USE_SMP).replace("{count}", str(count))
    use = use.replace("{head}", DPT_HEAD if type(segmenter.model).__name__ == "DPT" else "")
    sides = {"height": height, "width": width, "stride": segmenter.stride}
    for name, side in (("rows", height), ("columns", width)):
        sides[name] = max(1, round(side / segmenter.stride)) * segmenter.stride
    values = {name: list(getattr(segmenter, name)) for name in ("mean", "std")}
    for name, value in (sides | values).items():
        use = use.replace(f"{{{name}}}", str(value))
    return CARD.format(
        front=_front(segmenter, figures, onnx=onnx),
        name=type(segmenter.model).__name__,
        count=count,
        use=use,
        training=_training(segmenter),
        method="with\nConsistency-Aware Region Balancing (CARB)"
        if _by_carb(segmenter)
        else "on them\n(without Consistency-Aware Region Balancing, CARB)",
        figures=_figures(figures),
        score="" if figures is None else " IoU, % |",
        score_line="" if figures is None else "---|",
        classes=_classes(segmenter, figures),
        licence=(
            "Apache-2.0, as the code: it draws the scenes, and the small CLIP is its own."
            if own
            else "The code that made it is Apache-2.0. The weights learned from photos, CLIP or "
            "first weights of others:\nwhoever passes them on must keep to those terms, which for "
            "several data sets of driving scenes allow\nno commercial use."
        ),
        paper=PAPER,
    )


def _ours(segmenter: Segmenter) -> bool:
    """True where nobody else's photos, CLIP or first weights had a part."""
    extra = segmenter.extra
    drawn = extra.get("dataset") == "demo" and extra.get("clip") == DEMO_CLIP
    return drawn and str(extra.get("encoder_weights")) in DEMO_ENCODERS


def _by_carb(segmenter: Segmenter) -> bool:
    """False where CARB acted in no step; earlier versions did not write that down."""
    return segmenter.extra.get("carb_steps") != 0


def _front(segmenter: Segmenter, figures: Figures | None, *, onnx: bool) -> str:
    """The YAML that the Hub reads."""
    dataset, own = str(segmenter.extra.get("dataset", "unknown")), _ours(segmenter)
    results = None
    if figures is not None:
        result = EvalResult(
            task_type="image-segmentation",
            dataset_type=dataset,
            dataset_name=str(figures["protocol"].get("data", dataset)),
            metric_type="mean_iou",
            metric_name="mIoU",
            metric_value=round(figures["mIoU"], 4),
        )
        results = [result]
    tags = ["semantic-segmentation", "weak-supervision", "driving-scenes", "clip"]
    tags += ["carb"] if _by_carb(segmenter) else []
    data = ModelCardData(
        license=OURS if own else OTHERS,
        license_name=None if own else "terms-of-the-training-data",
        library_name="onnx" if onnx else LIBRARY,
        pipeline_tag="image-segmentation",
        tags=tags,
        datasets=[dataset],
        model_name=f"carb-wsss {type(segmenter.model).__name__}",
        eval_results=results,
    )
    return str(data.to_yaml())


def _training(segmenter: Segmenter) -> str:
    """What training wrote down, as a list."""
    extra = segmenter.extra
    rows = {
        "Data set": extra.get("dataset"),
        "Training photos": extra.get("photos"),
        "Labels": "image-level only",
        "Pseudo-masks made by CLIP": extra.get("clip"),
        "Weights of that CLIP, SHA-256": extra.get("clip_sha256"),
        "Architecture": type(segmenter.model).__name__,
        "Encoder": extra.get("encoder"),
        "Encoder's first weights": extra.get("encoder_weights"),
        "Size of photos, height x width": "{} x {}".format(*segmenter.base_size),
        "Steps": extra.get("steps"),
    }
    rows |= dict(extra.get("settings") or {})
    return "\n".join(f"- {name}: {value}" for name, value in rows.items() if value is not None)


def _figures(figures: Figures | None) -> str:
    """The main figures and how they were measured."""
    if figures is None:
        return (
            "Not given here: `carb export --metrics` writes a card with the figures of `carb eval`."
        )
    rows = [f"- mIoU: {100 * figures['mIoU']:.1f} %"]
    if isinstance(figures.get("pixel accuracy"), float):
        rows.append(f"- pixel accuracy: {100 * figures['pixel accuracy']:.1f} %")
    rows += ["", "Measured so:", ""]
    return "\n".join(rows + [f"- {name}: {value}" for name, value in figures["protocol"].items()])


def _classes(segmenter: Segmenter, figures: Figures | None) -> str:
    """A row of the table for each class."""
    rows = []
    for index, (name, colour) in enumerate(
        zip(segmenter.classes, segmenter.palette.tolist(), strict=True)
    ):
        row = f"| {index} | {table_cell(name)} | {', '.join(map(str, colour))} |"
        if figures is not None:
            value = figures["IoU"].get(name)
            row += " not in the data |" if value is None else f" {100 * value:.1f} |"
        rows.append(row)
    return "\n".join(rows)
