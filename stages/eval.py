"""Score a segmenter. In the pipeline: on the data set's validation photos. By hand: on any folder,
with masks for figures, without for predictions; `typer stages/eval.py run --images DIR`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.deploy.options import (
    EdgeRadiusOption,
    FlipOption,
    FontOption,
    ForceOption,
    MaskIdsChoice,
    MaskIdsOption,
    ModelOption,
    ScaleOption,
    WindowOption,
)
from pipeline.system.command import command
from pipeline.system.launch import rank_zero_only

app = typer.Typer(add_completion=False)


def in_folder(*names: str, help: str) -> Any:
    """An option that concerns a folder of photos."""
    return typer.Option(*names, help=help, rich_help_panel="A folder of photos")


def in_pipeline(help: str) -> Any:
    """An option that concerns the pipeline's own evaluation."""
    return typer.Option(help=help, rich_help_panel="In the pipeline")


LabelsOption = Annotated[Path, in_pipeline("Image-level labels.")]
SummaryOption = Annotated[Path, in_pipeline("Main figures, for DVC.")]


def check_folder_options(images: Path | None, given: bool) -> None:
    """Refuse options that concern a folder of photos where none is named."""
    if images is None and given:
        raise ValueError(
            "--masks, --scale, --flip, --window, --edge-radius, --submission, --font and --force "
            "concern a folder of photos: name it with --images; the pipeline's own evaluation "
            "takes params.yaml: eval and pictures"
        )


@app.command()
@command
@rank_zero_only
def main(
    images: Annotated[Path | None, in_folder(help="Photos to predict.")] = None,
    masks: Annotated[Path | None, in_folder(help="Their human masks, PNGs of ids.")] = None,
    mask_ids: MaskIdsOption = MaskIdsChoice.auto,
    submission: Annotated[
        bool, in_folder("--submission", help="Also write what the Cityscapes server takes.")
    ] = False,
    font: FontOption = None,
    force: ForceOption = False,
    scale: ScaleOption = None,
    flip: FlipOption = False,
    window: WindowOption = None,
    edge_radius: EdgeRadiusOption = None,
    model: ModelOption = Path("models/segmenter"),
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("predictions"),
    summary: SummaryOption = Path("results/segmenter.json"),
    store: Annotated[Path, in_pipeline("Pseudo-masks.")] = Path("data/masks.zarr"),
    image_labels: LabelsOption = Path("data/image_labels.csv"),
    params: Annotated[Path, in_pipeline("Parameter file.")] = Path("params.yaml"),
) -> None:
    """Score a segmenter on a folder (--images), or else on the data set that params.yaml names.

    Predictions and overlays of the folder are written, and with --masks its figures too:

        carb eval --images photos --masks annotations --out scored
    """
    from pipeline.deploy.folder import evaluate_folder
    from pipeline.deploy.predictions import Predictor
    from pipeline.report.evaluation_files import segmenter_report
    from pipeline.report.fonts import use_font
    from pipeline.segmenter.inference import TestTimeOptions
    from pipeline.segmenter.saved import load_segmenter
    from pipeline.system.command import memory_hint
    from pipeline.system.output_folders import outputs

    presentation = TestTimeOptions(tuple(scale or [1.0]), flip, window, edge_radius)
    of_folder = masks or scale or submission or font or force or presentation != TestTimeOptions()
    check_folder_options(images, bool(of_folder))
    inputs = {"store": store, "image_labels": image_labels, "params": params}
    sources = {"--model": model, "--images": images, "--masks": masks}
    sources |= {f"--{name}": path for name, path in inputs.items() if images is None}
    files = {"--summary": summary} if images is None else {}
    written = outputs("eval", folders={"--out": out}, files=files, sources=sources)
    segmenter = load_segmenter(model)
    with memory_hint("set params.yaml: eval.window (of a folder: --window), or lower eval.scales"):
        if images is not None:
            use_font(str(font) if font else None, segmenter.classes, setting="--font")
            evaluate_folder(
                Predictor(segmenter, presentation, segmenter.palette, command="eval"),
                images,
                masks,
                out,
                submission=submission,
                mask_ids=mask_ids.value,
                force=force,
            )
            return
        with written:
            segmenter_report(segmenter, **inputs, out=out, summary=summary)


if __name__ == "__main__":
    app()
