"""Index a data set and collect its image-level labels. Reads the data set's folder; writes the
index, the labels and a report. Human masks are opened only to simulate labels where none are
given."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.launch import alone
from pipeline.runtime import command

app = typer.Typer(add_completion=False)


@app.command()
@command
@alone
def main(
    index: Annotated[Path, typer.Option(help="Index to write.")] = Path("data/scenes.json"),
    image_labels: Annotated[Path, typer.Option(help="Labels to write.")] = Path(
        "data/image_labels.csv"
    ),
    report: Annotated[Path, typer.Option(help="Folder for pictures.")] = Path("results/prepare"),
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
) -> None:
    """Index a data set and collect its image-level labels.

    The data set is the one that the parameter file names, for example:

        carb prepare --params recipes/cityscapes.yaml
    """
    from pipeline.config import load_params
    from pipeline.data_report import prepare_report
    from pipeline.datasets import open_dataset
    from pipeline.image_labels import collect_image_labels
    from pipeline.index import index_scenes, used_scenes
    from pipeline.label_files import write_image_labels

    settings = load_params(params)
    dataset = open_dataset(settings.dataset.name, settings.dataset.root)
    scenes = used_scenes(dataset)
    found = index_scenes(dataset, scenes)
    labels = collect_image_labels(scenes, dataset, settings.dataset)
    found.write(index)
    write_image_labels(image_labels, labels, found.label_space.names)
    prepare_report(report, found, labels, root=dataset.root)


if __name__ == "__main__":
    app()
