"""Index a data set and collect its image-level labels. Reads the data set's folder; writes the
index, the labels and a report. Human masks are opened only to simulate labels where none are
given."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.runtime import command

app = typer.Typer(add_completion=False)


@app.command()
@command
def main(
    index: Annotated[Path, typer.Option(help="Index to write.")] = Path("data/scenes.json"),
    image_labels: Annotated[Path, typer.Option(help="Labels to write.")] = Path(
        "data/image_labels.csv"
    ),
    report: Annotated[Path, typer.Option(help="Folder for pictures.")] = Path("results/prepare"),
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
) -> None:
    """Index a data set and collect its image-level labels."""
    from pipeline.config import load_params
    from pipeline.data_report import prepare_report
    from pipeline.image_labels import collect_image_labels, write_image_labels
    from pipeline.index import classes_of, index_scenes, used_scenes

    settings = load_params(params)
    root = Path(settings.dataset.root)
    scenes = used_scenes(settings.dataset.name, root)
    found = index_scenes(settings.dataset.name, root, scenes)
    labels = collect_image_labels(scenes, settings.dataset, classes=classes_of(found))
    found.write(index)
    write_image_labels(image_labels, labels, classes_of(found))
    prepare_report(report, found, labels, root=root)


if __name__ == "__main__":
    app()
