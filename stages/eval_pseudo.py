"""Evaluation of the pseudo-masks. Reads masks.zarr, image-level labels and the data set; writes
metrics, charts and panels, or panels only if there are no human masks."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.system.command import command
from pipeline.system.devices import rank_zero_only

app = typer.Typer(add_completion=False)


@app.command()
@command
@rank_zero_only
def main(
    image_labels: Annotated[Path, typer.Option(help="Image-level labels.")] = Path(
        "data/image_labels.csv"
    ),
    masks: Annotated[Path, typer.Option(help="Pseudo-masks.")] = Path("data/masks.zarr"),
    relabelled: Annotated[
        Path, typer.Option(help="Output of stage relabel, with or without labels.")
    ] = Path("data/relabelled.zarr"),
    out: Annotated[Path, typer.Option(help="Folder for metrics and panels.")] = Path(
        "results/eval_pseudo"
    ),
    summary: Annotated[Path, typer.Option(help="Main metrics, for DVC.")] = Path(
        "results/pseudo_masks.json"
    ),
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
) -> None:
    """Score the pseudo-masks of each level against human masks, and draw panels of them.

    This needs no training, so prompts, levels and CLIP models can be compared in minutes:

        carb eval-pseudo --out scored --summary scored/metrics.json
    """
    from pipeline.config.base import load_sections
    from pipeline.config.eval import EvaluationSettings
    from pipeline.config.watched_files import watch
    from pipeline.datasets import open_dataset
    from pipeline.report.fonts import use_font
    from pipeline.report.pseudo_mask_files import write_pseudo_report
    from pipeline.scenes.image_labels import read_image_labels
    from pipeline.store.reader import PseudoMaskStore
    from pipeline.store.relabelled import has_labels
    from pipeline.system.outputs import outputs

    sources = {"--image-labels": image_labels, "--masks": masks, "--params": params}
    sources["--relabelled"] = relabelled
    with outputs(
        "eval_pseudo", folders={"--out": out}, files={"--summary": summary}, sources=sources
    ):
        settings = load_sections(params, EvaluationSettings)
        dataset = open_dataset(settings.dataset.name, settings.dataset.root)
        store = PseudoMaskStore.open(masks)
        use_font(settings.pictures.font, [*store.classes, *store.keys])
        labels = read_image_labels(image_labels, store.classes)
        write_pseudo_report(
            store,
            labels,
            dataset,
            photos=settings.eval.photos,
            palette=settings.pictures.palette,
            out=out,
            summary=summary,
            new=PseudoMaskStore.open(relabelled) if has_labels(relabelled) else None,
        )
        watch("eval_pseudo", settings, params)


if __name__ == "__main__":
    app()
