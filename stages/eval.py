"""Evaluation of a segmenter: on the data set's validation images (stage `eval`), or on a folder of
images (by hand: `typer stages/eval.py run --images DIR`)."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

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
from pipeline.system.devices import rank_zero_only

if TYPE_CHECKING:
    from pipeline.segmenter.inference import Segmenter

app = typer.Typer(add_completion=False)


def in_folder(*names: str, help: str) -> Any:
    """An option for a folder of photos."""
    return typer.Option(*names, help=help, rich_help_panel="A folder of photos")


def in_pipeline(help: str) -> Any:
    """An option for the evaluation in the pipeline."""
    return typer.Option(help=help, rich_help_panel="In the pipeline")


LabelsOption = Annotated[Path, in_pipeline("Image-level labels.")]
SummaryOption = Annotated[Path, in_pipeline("Main metrics, for DVC.")]
PreviewsOption = Annotated[Path | None, in_pipeline("Previews that training left, to be drawn.")]


def check_folder_options(images: Path | None, given: bool) -> None:
    """Refuse options for a folder of photos if there is no ``--images``."""
    if images is None and given:
        raise ValueError(
            "--masks, --scale, --flip, --window, --edge-radius, --submission, --font and --force "
            "need a folder of photos; give it with --images, or set params.yaml: eval and pictures "
            "for the evaluation in the pipeline"
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
    previews: PreviewsOption = None,
    params: Annotated[Path, in_pipeline("Parameter file.")] = Path("params.yaml"),
) -> None:
    """Score a segmenter on a folder (--images), or else on the data set of params.yaml.

    For a folder, predictions and overlays are written, and with --masks metrics, too:

        carb eval --images photos --masks annotations --out scored
    """
    from pipeline.deploy.folder import evaluate_folder
    from pipeline.deploy.predictions import Predictor
    from pipeline.report.fonts import use_font
    from pipeline.segmenter.inference import TestTimeOptions
    from pipeline.segmenter.saved import load_segmenter
    from pipeline.system.command import memory_hint
    from pipeline.system.outputs import outputs

    presentation = TestTimeOptions(tuple(scale or [1.0]), flip, window, edge_radius)
    of_folder = masks or scale or submission or font or force or presentation != TestTimeOptions()
    check_folder_options(images, bool(of_folder))
    inputs = {"--store": store, "--image-labels": image_labels, "--params": params}
    sources = {"--model": model, "--images": images, "--masks": masks, "--previews": previews}
    sources |= inputs if images is None else {}
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
            read = (store, image_labels, params)
            evaluate_data_set(segmenter, *read, out=out, summary=summary, previews=previews)


def evaluate_data_set(
    segmenter: "Segmenter",
    store: Path,
    image_labels: Path,
    params: Path,
    *,
    out: Path,
    summary: Path,
    previews: Path | None,
) -> None:
    """Evaluate a segmenter on the validation images of the data set."""
    from pipeline.config.base import Sections, load_sections
    from pipeline.config.dataset import DatasetParams
    from pipeline.config.eval import EvalParams, PicturesParams
    from pipeline.config.watched_files import watch
    from pipeline.datasets import open_dataset
    from pipeline.evaluation.photos import inference_options
    from pipeline.report.drawing import palette_of
    from pipeline.report.evaluation_files import write_segmenter_report
    from pipeline.report.fonts import use_font
    from pipeline.report.segmenter_panels import PanelInputs
    from pipeline.scenes.image_labels import read_image_labels
    from pipeline.store.reader import PseudoMaskStore

    class Settings(Sections):
        dataset: DatasetParams
        eval: EvalParams
        pictures: PicturesParams

    settings = load_sections(params, Settings)
    name, classes = settings.dataset.name, segmenter.classes
    dataset = open_dataset(name, settings.dataset.root)
    if classes != dataset.label_space.names:
        raise ValueError(
            f"the segmenter's {len(classes)} classes are not those of '{name}' "
            f"({params.name}: dataset.name); run `dvc repro train`"
        )
    labels = read_image_labels(image_labels, classes)
    use_font(settings.pictures.font, [*classes, *labels])
    inputs = PanelInputs(
        segmenter=segmenter,
        presentation=inference_options(settings.eval),
        store=PseudoMaskStore.open(store),
        labels=labels,
        read_mask=dataset.read_mask,
        palette=palette_of(settings.pictures.palette, dataset.label_space.palette),
    )
    write_segmenter_report(
        inputs, dataset, settings.eval, out=out, summary=summary, previews=previews
    )
    watch("eval", settings, params)


if __name__ == "__main__":
    app()
