"""Parameters for your own photos. Reads a folder of photos and the recipes; writes params.yaml."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.system.command import command
from pipeline.system.devices import rank_zero_only

app = typer.Typer(add_completion=False)
RECIPES = Path(__file__).parents[1] / "recipes"


@app.command()
@command
@rank_zero_only
def main(
    photos: Annotated[Path, typer.Argument(help="Folder of your photos.")],
    clip: Annotated[
        Path | None, typer.Option(help="Folder of a CLIP on disk, in place of a downloaded one.")
    ] = None,
    out: Annotated[Path, typer.Option(help="Parameter file to write.")] = Path("params.yaml"),
) -> None:
    """Write a params.yaml that fits your photos and this machine, with the reason for each choice.

    It says what is missing (class names, labels, weights) and the next command:

        carb init my-photos
    """
    from pipeline.planning.params_file import init_params

    init_params(photos, out, RECIPES, clip=clip)


if __name__ == "__main__":
    app()
