"""Check-up of machine and recipe before a run, with measured times. Reads params.yaml and a photo;
writes nothing."""

from pathlib import Path
from typing import Annotated

import typer

from pipeline.system.command import command
from pipeline.system.devices import rank_zero_only

app = typer.Typer(add_completion=False)
DEMO = {"train": 120, "val": 40}  # scenes that dvc.yaml lets the stage `draw` draw


@app.command()
@command
@rank_zero_only
def main(
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
) -> None:
    """Show whether a run can start on this machine, and how long and large it will be.

    One photo and one training step are measured. The exit code is 0 if the run can start, 1 if
    something is missing:

        carb doctor --params recipes/camvid.yaml
    """
    import logging
    from dataclasses import replace
    from tempfile import TemporaryDirectory

    from demo.drawn_dataset import draw_split
    from pipeline.config.params import load_params
    from pipeline.datasets import open_dataset
    from pipeline.planning import checkup

    settings = load_params(params)
    logging.getLogger("carb").setLevel(logging.WARNING)  # only the check-up is shown
    logging.getLogger().setLevel(logging.ERROR)  # open_clip warns of random weights
    found = checkup.Checkup()
    checkup.describe_machine(found, settings)
    checkup.describe_needs(found, settings)
    with TemporaryDirectory() as drawn:
        try:
            if settings.dataset.name == "demo" and not Path(settings.dataset.root).exists():
                # One scene to measure with; the stage `draw` draws the others.
                draw_split(Path(drawn), "train", seed=0, count=1)
                dataset = open_dataset("demo", drawn)
                photos = checkup.summary_of(
                    dataset.scenes("train"), classes=len(dataset.label_space.classes)
                )
                photos = replace(photos, counts=DEMO)
            else:
                photos = checkup.photos_of(settings)
        except ValueError as error:
            found.faults.append(str(error))
        else:
            checkup.describe_run(found, settings, photos, Path("data"))
    checkup.print_checkup(found)
    raise typer.Exit(1 if found.faults else 0)


if __name__ == "__main__":
    app()
