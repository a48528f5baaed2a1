"""New labels of the training images, by segmenters trained on other images. Reads index, images,
image-level labels, masks.zarr and the encoder's initial weights, but no human masks; writes
relabelled.zarr, without labels if relabel.rounds is 0."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.system.command import command
from pipeline.system.devices import rank_zero_only
from pipeline.system.files import NOTHING, atomic_path

app = typer.Typer(add_completion=False)


@app.command()
@command
def main(
    index: Annotated[Path, typer.Option(help="Index of the images.")] = Path("data/scenes.json"),
    image_labels: Annotated[Path, typer.Option(help="Image-level labels.")] = Path(
        "data/image_labels.csv"
    ),
    masks: Annotated[Path, typer.Option(help="Pseudo-masks.")] = Path("data/masks.zarr"),
    encoder: Annotated[Path, typer.Option(help="Initial weights of the encoder.")] = Path(
        "models/encoder.safetensors"
    ),
    out: Annotated[Path, typer.Option(help="Store to write.")] = Path("data/relabelled.zarr"),
    scratch: Annotated[
        Path, typer.Option(help="Folder for partial results.", envvar="CARB_SCRATCH")
    ] = Path("scratch"),
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
) -> None:
    """Label the training images anew, each by a segmenter that has not seen it.

    An interrupted run resumes from its last checkpoint. With relabel.rounds 0 nothing is computed.

        carb relabel --out data/relabelled.zarr
    """
    from pipeline.config.base import load_sections
    from pipeline.config.relabel import RelabelSettings
    from pipeline.system.command import memory_hint
    from pipeline.system.outputs import outputs

    sources = {"--index": index, "--image-labels": image_labels, "--masks": masks}
    sources |= {"--encoder": encoder, "--params": params}
    with outputs("relabel", folders={"--out": out}, sources=sources):
        settings = load_sections(params, RelabelSettings)
        if settings.relabel.rounds == 0:
            _write_no_labels(out)
            return

        from pipeline.relabelling.relabel import relabel, settings_of_fold  # seconds of imports
        from pipeline.training.inputs import Inputs

        inputs = Inputs.read(
            index=index,
            image_labels=image_labels,
            masks=masks,
            encoder=encoder,
            params=settings_of_fold(settings),
        )
        with memory_hint("lower params.yaml: train.batch_size, views.crop or train.workers"):
            relabel(inputs, settings, out=out, scratch=scratch)


@rank_zero_only
def _write_no_labels(out: Path) -> None:
    with atomic_path(out) as draft:
        draft.mkdir()
        (draft / NOTHING).write_text("relabel.rounds is 0\n", "utf-8")


if __name__ == "__main__":
    app()
