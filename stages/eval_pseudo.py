"""Score the pseudo-masks against human masks. Reads masks.zarr, image-level labels, the data set's
folder; writes metrics.json, a per-class table and pictures."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.system.command import command
from pipeline.system.launch import rank_zero_only

app = typer.Typer(add_completion=False)


@app.command()
@command
@rank_zero_only
def main(
    image_labels: Annotated[Path, typer.Option(help="Image-level labels.")] = Path(
        "data/image_labels.csv"
    ),
    masks: Annotated[Path, typer.Option(help="Pseudo-masks.")] = Path("data/masks.zarr"),
    out: Annotated[Path, typer.Option(help="Folder for tables and pictures.")] = Path(
        "results/eval_pseudo"
    ),
    summary: Annotated[Path, typer.Option(help="Main figures, for DVC.")] = Path(
        "results/pseudo_masks.json"
    ),
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
) -> None:
    """Score the pseudo-masks against human masks, level by level.

    No training is needed, so words, levels and CLIPs are compared in minutes:

        carb eval-pseudo --out scored --summary scored/figures.json
    """
    from pipeline.config.params import load_params
    from pipeline.config.watched_files import watch
    from pipeline.datasets import open_dataset
    from pipeline.report.evaluation_files import pseudo_report
    from pipeline.report.fonts import use_font
    from pipeline.scenes.image_labels import read_image_labels
    from pipeline.store.reader import PseudoMaskStore
    from pipeline.system.output_folders import outputs

    sources = {"--image-labels": image_labels, "--masks": masks, "--params": params}
    with outputs(
        "eval_pseudo", folders={"--out": out}, files={"--summary": summary}, sources=sources
    ):
        settings = load_params(params)
        named = settings.dataset
        dataset = open_dataset(named.name, named.root)
        store = PseudoMaskStore.open(masks)
        use_font(settings.pictures.font, [*store.classes, *store.keys])
        labels = read_image_labels(image_labels, store.classes)
        pseudo_report(
            store,
            labels,
            dataset,
            photos=settings.eval.photos,
            palette=settings.pictures.palette,
            out=out,
            summary=summary,
        )
        watch("eval_pseudo", settings, params)


if __name__ == "__main__":
    app()
