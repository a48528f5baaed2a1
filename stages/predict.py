"""Prediction of photos, folders and videos with a trained segmenter. Writes masks, overlays,
confidence maps and a legend."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.deploy.options import (
    EdgeRadiusOption,
    FlipOption,
    FontOption,
    ForceOption,
    ModelOption,
    PaletteChoice,
    ScaleOption,
    WindowOption,
)
from pipeline.system.command import command
from pipeline.system.devices import rank_zero_only

app = typer.Typer(add_completion=False)


@app.command()
@command
@rank_zero_only
def main(
    sources: Annotated[
        list[Path], typer.Argument(help="Photos, videos, or folders of them.", show_default=False)
    ],
    model: ModelOption = Path("models/segmenter"),
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("predictions"),
    palette: Annotated[
        PaletteChoice, typer.Option(help="Colours of the classes.")
    ] = PaletteChoice.dataset,
    font: FontOption = None,
    frames: Annotated[
        bool,
        typer.Option(
            "--frames", help="For videos, also write the mask and confidence of each frame."
        ),
    ] = False,
    force: ForceOption = False,
    scale: ScaleOption = None,
    flip: FlipOption = False,
    window: WindowOption = None,
    edge_radius: EdgeRadiusOption = None,
) -> None:
    """Predict photos and videos: masks (PNGs of class indices), overlays, confidence, a legend.

    A video (mp4, mov, webm and others) becomes an mp4 of the same size and frame rate, without
    sound. An interrupted run resumes when started again. Unreadable files are skipped and listed
    at the end.

        carb predict ride.mp4 --model models/segmenter --out predictions
    """
    from pipeline.deploy.predict import predict
    from pipeline.deploy.prediction_files import Predictor
    from pipeline.deploy.sources import find_sources
    from pipeline.report.drawing import palette_of
    from pipeline.report.fonts import use_font
    from pipeline.segmenter.inference import TestTimeOptions
    from pipeline.segmenter.saved import load_segmenter
    from pipeline.system.command import memory_hint
    from pipeline.system.outputs import outputs

    inputs = {f"the source {number}": path for number, path in enumerate(sources, start=1)}
    outputs("predict", folders={"--out": out}, sources={**inputs, "--model": model})
    found = find_sources(sources, out, frames=frames)
    segmenter = load_segmenter(model)
    use_font(str(font) if font else None, segmenter.classes, setting="--font")
    predictor = Predictor(
        segmenter,
        TestTimeOptions(tuple(scale or [1.0]), flip, window, edge_radius),
        palette_of(palette.value, segmenter.palette),
        command="predict",
    )
    with memory_hint("predict through sliding windows (--window), or lower --scale"):
        predict(predictor, found, out, frames=frames, force=force)


if __name__ == "__main__":
    app()
