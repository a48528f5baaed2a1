"""Training of the segmenter on the cached pseudo-masks. Reads index, images, image-level labels,
masks.zarr, the labels of stage relabel if there are any, and the encoder's initial weights, but no
human masks; writes the segmenter, curves and previews."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.system.command import command

app = typer.Typer(add_completion=False)


@app.command()
@command
def main(
    index: Annotated[Path, typer.Option(help="Index of the images.")] = Path("data/scenes.json"),
    image_labels: Annotated[Path, typer.Option(help="Image-level labels.")] = Path(
        "data/image_labels.csv"
    ),
    masks: Annotated[Path, typer.Option(help="Pseudo-masks.")] = Path("data/masks.zarr"),
    relabelled: Annotated[
        Path, typer.Option(help="Output of stage relabel, with or without labels.")
    ] = Path("data/relabelled.zarr"),
    encoder: Annotated[Path, typer.Option(help="Initial weights of the encoder.")] = Path(
        "models/encoder.safetensors"
    ),
    out: Annotated[Path, typer.Option(help="Segmenter to write.")] = Path("models/segmenter"),
    curves: Annotated[Path, typer.Option(help="Folder for curves and previews.")] = Path(
        "results/train"
    ),
    scratch: Annotated[
        Path, typer.Option(help="Folder for partial results.", envvar="CARB_SCRATCH")
    ] = Path("scratch"),
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
) -> None:
    """Train the segmenter on the cached pseudo-masks.

    An interrupted run resumes from its last checkpoint. To train a second segmenter:

        carb train --params other.yaml --out models/other --curves results/other
    """
    from pipeline.config.base import load_sections
    from pipeline.config.watched_files import watch
    from pipeline.system.outputs import outputs
    from pipeline.training.inputs import Inputs, TrainSettings
    from pipeline.training.run import train_segmenter

    folders = {"--out": out, "--curves": curves}
    sources = {"--index": index, "--image-labels": image_labels, "--masks": masks}
    sources |= {"--relabelled": relabelled, "--encoder": encoder, "--params": params}
    settings = load_sections(params, TrainSettings)
    if settings.segmenter.weights is not None:
        sources["segmenter.weights"] = Path(settings.segmenter.weights)
    with outputs("train", folders=folders, sources=sources):
        inputs = Inputs.read(
            index=index,
            image_labels=image_labels,
            masks=masks,
            encoder=encoder,
            params=settings,
            relabelled=relabelled,
        )
        train_segmenter(inputs, settings, out=out, curves=curves, scratch=scratch)
        watch("train", settings, params)


if __name__ == "__main__":
    app()
