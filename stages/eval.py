"""Score a segmenter. In the pipeline: on the data set's validation photos. By hand: on any folder,
with masks for figures, without for predictions; `typer stages/eval.py run --images DIR`."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.launch import alone
from pipeline.runtime import command

app = typer.Typer(add_completion=False)
FOLDER, PIPELINE = "A folder of photos", "In the pipeline"


@app.command()
@command
@alone
def main(
    images: Annotated[
        Path | None, typer.Option(help="Photos to predict.", rich_help_panel=FOLDER)
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            help="Their human masks (PNG of class ids, same names).", rich_help_panel=FOLDER
        ),
    ] = None,
    scale: Annotated[
        list[float] | None,
        typer.Option(
            min=0.05,
            max=16,
            help="Magnification to average over; repeat it.",
            rich_help_panel=FOLDER,
        ),
    ] = None,
    flip: Annotated[
        bool, typer.Option("--flip", help="Average with the mirror image.", rich_help_panel=FOLDER)
    ] = False,
    window: Annotated[
        tuple[int, int] | None,
        typer.Option(min=1, help="Height and width of sliding windows.", rich_help_panel=FOLDER),
    ] = None,
    edge_radius: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="Let the answer follow the photo's edges: radius in pixels of the base size.",
            rich_help_panel=FOLDER,
        ),
    ] = None,
    submission: Annotated[
        bool,
        typer.Option(
            "--submission",
            help="Also write what the Cityscapes server takes.",
            rich_help_panel=FOLDER,
        ),
    ] = False,
    model: Annotated[Path, typer.Option(help="Folder of a trained segmenter.")] = Path(
        "models/segmenter"
    ),
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("predictions"),
    summary: Annotated[
        Path, typer.Option(help="Main figures, for DVC.", rich_help_panel=PIPELINE)
    ] = Path("results/segmenter.json"),
    store: Annotated[Path, typer.Option(help="Pseudo-masks.", rich_help_panel=PIPELINE)] = Path(
        "data/masks.zarr"
    ),
    image_labels: Annotated[
        Path, typer.Option(help="Image-level labels.", rich_help_panel=PIPELINE)
    ] = Path("data/image_labels.csv"),
    params: Annotated[Path, typer.Option(help="Parameter file.", rich_help_panel=PIPELINE)] = Path(
        "params.yaml"
    ),
) -> None:
    """Score a segmenter on a folder (--images), or else on the data set that params.yaml names.

    Predictions and overlays of the folder are written, and with --masks its figures too:

        carb eval --images photos --masks annotations --out scored
    """
    from pipeline.folder_evaluation import evaluate_folder
    from pipeline.inference import Presentation
    from pipeline.reports import segmenter_report
    from pipeline.runtime import memory_hint
    from pipeline.segmenter import load_segmenter

    presentation = Presentation(tuple(scale or [1.0]), flip, window, edge_radius)
    if images is None and (masks or scale or submission or presentation != Presentation()):
        raise ValueError(
            "--masks, --scale, --flip, --window, --edge-radius and --submission concern a folder "
            "of photos: name it with --images; the pipeline's own evaluation takes params.yaml: "
            "eval"
        )
    segmenter = load_segmenter(model)
    with memory_hint("set params.yaml: eval.window (of a folder: --window), or lower eval.scales"):
        if images is not None:
            evaluate_folder(
                segmenter, images, masks, out=out, presentation=presentation, submission=submission
            )
            return
        segmenter_report(
            segmenter,
            store=store,
            image_labels=image_labels,
            params=params,
            out=out,
            summary=summary,
        )


if __name__ == "__main__":
    app()
