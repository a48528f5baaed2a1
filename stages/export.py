"""ONNX export of a trained segmenter, with a model card."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.deploy.options import ModelOption
from pipeline.system.command import command
from pipeline.system.devices import rank_zero_only

app = typer.Typer(add_completion=False)


@app.command()
@command
@rank_zero_only
def main(
    model: ModelOption = Path("models/segmenter"),
    out: Annotated[Path, typer.Option(help="Folder to write; replaced.")] = Path("models/onnx"),
    metrics: Annotated[
        Path | None, typer.Option(help="metrics.json of `carb eval`, for the model card.")
    ] = None,
    opset: Annotated[
        int | None,
        typer.Option(
            min=16,
            max=24,
            help="ONNX operator set version; older runtimes need a lower one.",
            show_default="20",
        ),
    ] = None,
) -> None:
    """Export a segmenter as model.onnx for ONNX Runtime, and write a model card.

    The model is checked against PyTorch at two input sizes and discarded if they disagree.

        carb export --model models/segmenter --out models/onnx --metrics results/eval/metrics.json
    """
    from pipeline.deploy.onnx import export
    from pipeline.segmenter.saved import load_segmenter
    from pipeline.system.outputs import outputs

    sources = {"--model": model, "--metrics": metrics}
    with outputs("export", folders={"--out": out}, sources=sources):
        export(load_segmenter(model), out, metrics=metrics, opset=opset)


if __name__ == "__main__":
    app()
