"""Index and image-level labels of a data set. Reads the data set's folder; writes the index, the
labels and charts. Human masks are opened only to simulate image-level labels where none are given.
Its subcommand propose-labels lets CLIP propose labels for your own photos."""

from importlib import import_module
from pathlib import Path
from typing import Annotated

import typer

from pipeline.system.command import command
from pipeline.system.devices import rank_zero_only

app = typer.Typer(add_completion=False)


@app.callback(invoke_without_command=True)
@command
@rank_zero_only
def main(
    context: typer.Context,
    index: Annotated[Path, typer.Option(help="Index to write.")] = Path("data/scenes.json"),
    image_labels: Annotated[Path, typer.Option(help="Labels to write.")] = Path(
        "data/image_labels.csv"
    ),
    report: Annotated[Path, typer.Option(help="Folder for charts.")] = Path("results/prepare"),
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
) -> None:
    """Index a data set and collect its image-level labels.

    The parameter file names the data set, for example:

        carb prepare --params recipes/cityscapes.yaml
    """
    if context.invoked_subcommand is not None:
        return
    from pipeline.config.params import load_params
    from pipeline.config.watched_files import watch
    from pipeline.datasets import open_dataset
    from pipeline.datasets.collect import (
        given_image_labels,
        index_scenes,
        log_remarks,
        simulated_image_labels,
        used_scenes,
    )
    from pipeline.report.dataset_charts import prepare_report
    from pipeline.report.fonts import use_font
    from pipeline.scenes.image_labels import write_image_labels
    from pipeline.system.outputs import outputs

    files = {"--index": index, "--image-labels": image_labels}
    with outputs("prepare", folders={"--report": report}, files=files):
        settings = load_params(params)
        dataset = open_dataset(settings.dataset.name, settings.dataset.root)
        scenes = used_scenes(dataset)
        names = dataset.label_space.names
        use_font(settings.pictures.font, [*names, *(scene.key for scene in scenes)])
        log_remarks(dataset, scenes)
        labels = given_image_labels(scenes, dataset, settings.dataset)
        found = index_scenes(dataset, scenes)
        if labels is None:
            labels = simulated_image_labels(scenes, dataset, settings.dataset)
        prepare_report(report, found, labels, root=dataset.root)  # labels may be in this folder
        found.write(index)
        write_image_labels(image_labels, labels, names)
        watch("prepare", settings, params)


@app.command()
@command
@rank_zero_only
def propose_labels(
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Minimum confidence for proposing a label.")
    ] = 0.5,
    force: Annotated[
        bool, typer.Option("--force", help="Propose again; labels.csv is kept as labels.1.csv.")
    ] = False,
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
) -> None:
    """Let CLIP propose labels for your own photos; correct them, then run "dvc repro".

    Writes labels.csv, label_confidence.csv and proposals/ into the folder of dataset.root:

        carb prepare propose-labels --threshold 0.4
    """
    # Imported by name, so that `prepare` does not depend on the code of CLIP (see dvc.yaml).
    propose = import_module("pipeline.proposals.propose").propose_labels
    propose(params, threshold=threshold, force=force)


if __name__ == "__main__":
    app()
