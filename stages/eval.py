"""Evaluation of a segmenter: on the data set's validation images (stage `eval`), or on a folder of
images (by hand: `typer stages/eval.py run --images DIR`)."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.deploy import options
from pipeline.system.command import command
from pipeline.system.devices import rank_zero_only

app = typer.Typer(add_completion=False)


@app.command()
@command
@rank_zero_only
def main(
    images: options.ImagesOption = None,
    masks: options.MasksOption = None,
    mask_ids: options.MaskIdsOption = options.MaskIdsChoice.auto,
    submission: options.SubmissionOption = False,
    font: options.FontOption = None,
    force: options.ForceOption = False,
    scale: options.ScaleOption = None,
    flip: options.FlipOption = False,
    window: options.WindowOption = None,
    edge_radius: options.EdgeRadiusOption = None,
    model: options.ModelOption = Path("models/segmenter"),
    ensemble: options.EnsembleOption = None,
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("predictions"),
    summary: options.SummaryOption = Path("results/segmenter.json"),
    store: options.StoreOption = Path("data/masks.zarr"),
    image_labels: options.LabelsOption = Path("data/image_labels.csv"),
    previews: options.PreviewsOption = None,
    params: options.ParamsOption = Path("params.yaml"),
) -> None:
    """Score a segmenter on a folder (--images), or else on the data set of params.yaml.

    For a folder, predictions and overlays are written, and with --masks metrics, too:

        carb eval --images photos --masks annotations --out scored
    """
    from pipeline.config.base import load_sections
    from pipeline.config.eval import EvaluationSettings
    from pipeline.config.watched_files import watch
    from pipeline.deploy.prediction_files import Predictor
    from pipeline.deploy.score_folder import evaluate_folder
    from pipeline.report.evaluation_files import evaluate_data_set
    from pipeline.report.fonts import use_font
    from pipeline.segmenter.inference import TestTimeOptions
    from pipeline.segmenter.saved import load_ensemble
    from pipeline.system.command import memory_hint
    from pipeline.system.outputs import outputs

    test_time = TestTimeOptions(tuple(scale or [1.0]), flip, window, edge_radius)
    of_folder = masks or scale or submission or font or force or ensemble
    options.check_folder_options(images, bool(of_folder) or test_time != TestTimeOptions())
    sources = {"--model": model, "--images": images, "--masks": masks, "--previews": previews}
    sources |= {f"--ensemble {path}": path for path in ensemble or ()}
    files = {"--summary": summary} if images is None else {}
    if images is None:
        sources |= {"--store": store, "--image-labels": image_labels, "--params": params}
    written = outputs("eval", folders={"--out": out}, files=files, sources=sources)
    with memory_hint("set params.yaml: eval.window (of a folder: --window), or lower eval.scales"):
        if images is not None:
            segmenter, *others = load_ensemble(model, ensemble or ())
            use_font(str(font) if font else None, segmenter.classes, setting="--font")
            predictor = Predictor(segmenter, test_time, segmenter.palette, "eval", tuple(others))
            folder, ids = (predictor, images, masks, out), mask_ids.value
            evaluate_folder(*folder, submission=submission, mask_ids=ids, force=force)
            return
        with written:
            settings = load_sections(params, EvaluationSettings)
            read = (store, image_labels, previews)
            evaluate_data_set(model, settings, *read, out=out, summary=summary)
            watch("eval", settings, params)


if __name__ == "__main__":
    app()
