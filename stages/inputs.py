"""Show DVC the files that params.yaml names and what linked folders of the data set contain. Runs
each time; writes links and digests."""

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
        Path, typer.Option(help="Folder for what is remembered.", envvar="CARB_SCRATCH")
    ] = Path("scratch"),
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
) -> None:
    """Show DVC the files that params.yaml names, and folders that links in the data set lead to.

    Editing one of them then makes the stages run again that read it:

        carb inputs
    """
    from pipeline.config.params import load_params
    from pipeline.config.watched_files import watch_all

    watch_all(load_params(params), memory=scratch / "linked_files.json")


if __name__ == "__main__":
    app()
