"""Prediction of photos, folders and videos with a trained segmenter. Writes masks, overlays,
confidence maps and a legend."""

from pathlib import Path

import typer

from pipeline.deploy.options import (
    EdgeRadiusOption,
    EnsembleOption,
    FlipOption,
    FontOption,
    ForceOption,
    FormatOption,
    FramesOption,
    LegendOption,
    MaskFormatChoice,
    ModelOption,
    OutOption,
    PaletteChoice,
    PaletteOption,
    RecursiveOption,
    ScaleOption,
    SourcesArgument,
    WindowOption,
)
from pipeline.system.command import command
from pipeline.system.devices import rank_zero_only

app = typer.Typer(add_completion=False)


@app.command()
@command
@rank_zero_only
def main(
    sources: SourcesArgument,
    model: ModelOption = Path("models/segmenter"),
    ensemble: EnsembleOption = None,
    out: OutOption = Path("predictions"),
    recursive: RecursiveOption = True,
    mask_format: FormatOption = MaskFormatChoice.palette,
    palette: PaletteOption = PaletteChoice.dataset,
    font: FontOption = None,
    frames: FramesOption = False,
    legend: LegendOption = True,
    force: ForceOption = False,
    scale: ScaleOption = None,
    flip: FlipOption = False,
    window: WindowOption = None,
    edge_radius: EdgeRadiusOption = None,
) -> None:
    """Predict photos and videos: masks (class ids), overlays, confidence, a legend.

    A video (mp4, mov, webm and others) becomes an mp4 of the same frame rate, without sound.

    An interrupted run resumes when started again. Unreadable files are skipped and listed at the
    end.

        carb predict ride.mp4 --model models/segmenter --out predictions
    """
    from pipeline.deploy.predict import predict
    from pipeline.deploy.prediction_files import Predictor
    from pipeline.deploy.sources import find_sources
    from pipeline.report.drawing import palette_of
    from pipeline.report.fonts import use_font
    from pipeline.segmenter.inference import TestTimeOptions
    from pipeline.segmenter.saved import load_ensemble
    from pipeline.system.command import memory_hint
    from pipeline.system.outputs import outputs

    inputs = {f"the source {number}": path for number, path in enumerate(sources, start=1)}
    inputs |= {f"--ensemble {path}": path for path in ensemble or ()} | {"--model": model}
    outputs("predict", folders={"--out": out}, sources=inputs)
    found = find_sources(
        sources, out, frames=frames, recursive=recursive, mask_ending=mask_format.ending
    )
    segmenter, *others = load_ensemble(model, ensemble or ())
    use_font(str(font) if font else None, segmenter.classes, setting="--font")
    predictor = Predictor(
        segmenter,
        TestTimeOptions(tuple(scale or [1.0]), flip, window, edge_radius),
        palette_of(palette.value, segmenter.palette),
        command="predict",
        ensemble=tuple(others),
        mask_format=mask_format.value,
    )
    with memory_hint("predict through sliding windows (--window), or lower --scale"):
        predict(predictor, found, out, frames=frames, force=force, legend=legend)


if __name__ == "__main__":
    app()
