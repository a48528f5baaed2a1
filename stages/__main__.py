"""The command `carb`: ``carb train`` is ``python -m stages.train``, with shell completion."""

import pkgutil
from importlib import import_module
from importlib.metadata import version
from typing import Annotated

import typer
from typer.core import TyperCommand, TyperGroup
from typer.main import get_command

import stages

TOOLS = ("init", "fetch", "doctor", "predict", "export")  # in the order of a user's day
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
    "report",
)  # in the order of dvc.yaml

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

    Every command has its own help:

        carb eval --help
    """


def stage_names() -> list[str]:
    """All commands: those of a user, then the stages of the pipeline."""
    found = {module.name for module in pkgutil.iter_modules(stages.__path__)} - {"__main__"}
    known = [name for name in (*TOOLS, *PIPELINE) if name in found]
    return known + sorted(found - set(known))


def main() -> None:
    """Run the stage that the arguments name."""
    command = get_command(app)
    assert isinstance(command, TyperGroup)
    for name in stage_names():
        stage = get_command(import_module(f"stages.{name}").app)
        assert isinstance(stage, TyperCommand | TyperGroup)
        stage.name = name.replace("_", "-")
        if name in PIPELINE:
            stage.rich_help_panel = 'Stages; "dvc repro" runs those that are out of date'
        command.commands[stage.name] = stage
    command(prog_name="carb")


if __name__ == "__main__":
    main()
