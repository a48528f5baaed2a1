"""Change detection for DVC: lists the files that params.yaml names and those of the data set. Runs
every time; writes links and a manifest."""

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
    scratch: Annotated[
        Path, typer.Option(help="Folder of cached file digests.", envvar="CARB_SCRATCH")
    ] = Path("scratch"),
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
) -> None:
    """List the files that params.yaml names and those of the data set, so that DVC tracks them.

    If one of them changes, "dvc repro" reruns the stages that read it:

        carb inputs
    """
    from pipeline.config.clip import check_knows_photos
    from pipeline.config.params import load_params
    from pipeline.config.watched_files import watch_all
    from pipeline.datasets.collect import dataset_manifest

    settings = load_params(params)
    named = settings.dataset
    check_knows_photos(settings.clip, named.name)
    manifest = dataset_manifest(named.name, Path(named.root), scratch / "dataset_files.json")
    watch_all(settings, manifest=manifest)


if __name__ == "__main__":
    app()
