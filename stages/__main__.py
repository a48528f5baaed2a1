"""The command `carb`: ``carb train`` is ``python -m stages.train``, with shell completion."""

import pkgutil
from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import typer
from typer.core import TyperGroup
from typer.main import get_command

import stages

PIPELINE = (
    "draw",
    "inputs",
    "prepare",
    "pseudo",
    "encoder",
    "relabel",
    "train",
    "eval",
    "eval_pseudo",
)  # in this order

app = typer.Typer(no_args_is_help=True)


def _show_version(wanted: bool) -> None:
    """Print the version of the installed package and end."""
    if wanted:
        typer.echo(f"carb-wsss {version('carb-wsss')}")
        raise typer.Exit


@app.callback()
def describe(
    _: Annotated[
        bool,
        typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    """Segment driving scenes, supervised by image-level labels only.

    Each command runs one stage; "dvc repro" runs all stages that are out of date.

    Every command has its own help:

        carb eval --help
    """


def stage_names() -> list[str]:
    """The stages, those of the pipeline first."""
    found = {module.name for module in pkgutil.iter_modules(stages.__path__)} - {"__main__"}
    return [name for name in PIPELINE if name in found] + sorted(found - set(PIPELINE))


def main() -> None:
    """Run the stage that the arguments name."""
    command = get_command(app)
    assert isinstance(command, TyperGroup)
    for name in stage_names():
        stage = get_command(import_module(f"stages.{name}").app)
        stage.name = name.replace("_", "-")
        command.commands[stage.name] = stage
    command(prog_name="carb")


if __name__ == "__main__":
    main()
