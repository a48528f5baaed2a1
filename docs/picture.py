"""Generator of the picture at the top of README.md: images of a finished run.

    dvc repro && python -m docs.picture

The validation images are those of median mIoU, not the best ones.
"""

from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from PIL import Image

from pipeline.config.base import load_sections
from pipeline.config.eval import EvaluationSettings
from pipeline.datasets import open_dataset
from pipeline.datasets.base import Dataset, Scene, read_scene_mask
from pipeline.evaluation.selection import annotated, inference_options, scenes_of
from pipeline.report.drawing import overlay, save_png
from pipeline.report.fonts import use_font
from pipeline.report.panels import PanelRow, class_entries, panel
from pipeline.report.segmenter_panels import PanelInputs, ranked
from pipeline.scenes.image_io import read_image
from pipeline.scenes.image_labels import read_image_labels
from pipeline.segmenter.inference import predict_mask
from pipeline.segmenter.saved import load_segmenter
from pipeline.store.reader import PseudoMaskStore, hard_mask
from pipeline.system.command import command

ROWS, SCALE, ALPHA = 3, 2, 0.75
TITLES = ("photo", "CLIP, given the labels", "segmenter, given the photo only", "true mask")
app = typer.Typer(add_completion=False)


def row_of(scene: Scene, inputs: PanelInputs) -> PanelRow:
    """Photo, pseudo-mask, prediction and true mask at twice the photo's size, under its labels."""
    photo = read_image(scene.image)
    image = np.asarray(photo.resize((SCALE * photo.width, SCALE * photo.height)))
    size = (image.shape[0], image.shape[1])
    store, present = inputs.store, inputs.labels[scene.key]
    logits = torch.from_numpy(store.read(scene.key, store.levels[-1]))  # fused, if there is one
    masks = [
        hard_mask(logits, torch.from_numpy(present), size).numpy(),
        predict_mask(inputs.segmenter, photo, size, inputs.test_time),
        read_scene_mask(scene, inputs.read_mask).repeat(SCALE, 0).repeat(SCALE, 1),
    ]
    names = [name for name, there in zip(store.classes, present, strict=True) if there]
    drawn = [overlay(image, mask, inputs.palette, alpha=ALPHA) for mask in masks]
    return PanelRow([image, *drawn], f"Labels: {', '.join(names)}")


def picture(dataset: Dataset, inputs: PanelInputs) -> Image.Image:
    """The rows of the median images, and the legend."""
    scenes = annotated(scenes_of(dataset, "val"))
    score = inputs.score(scenes)
    rows = [row_of(scene, inputs) for scene in ranked(scenes, score.photo_iou, ROWS)["median"]]
    legend = class_entries(inputs.segmenter.classes, inputs.palette)[:-1]  # nothing is ignored
    return panel(rows, titles=TITLES, legend=[legend])


@app.command()
@command
def main(
    out: Annotated[Path, typer.Option(help="Picture to write.")] = Path("docs/images/demo.png"),
) -> None:
    """Draw the picture at the top of README.md from the outputs of "dvc repro"."""
    settings = load_sections(Path("params.yaml"), EvaluationSettings)
    dataset = open_dataset(settings.dataset.name, settings.dataset.root)
    segmenter = load_segmenter(Path("models/segmenter"))
    use_font(settings.pictures.font, segmenter.classes)
    inputs = PanelInputs(
        segmenter=segmenter,
        test_time=inference_options(settings.eval),
        store=PseudoMaskStore.open(Path("data/masks.zarr")),
        labels=read_image_labels(Path("data/image_labels.csv"), segmenter.classes),
        read_mask=dataset.read_mask,
        palette=dataset.label_space.palette,
    )
    save_png(out, picture(dataset, inputs))


if __name__ == "__main__":
    app()
