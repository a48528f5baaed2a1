"""HTML report of a run, and its summary on the terminal. Reads the results of the other stages;
writes report.html. It opens no images of the data set and no human masks."""

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
    results: Annotated[Path, typer.Option(help="Folder of the results of all stages.")] = Path(
        "results"
    ),
    index: Annotated[Path, typer.Option(help="Index of the images.")] = Path("data/scenes.json"),
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("results/report.html"),
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
) -> None:
    """Write one self-contained HTML file with metrics, panels, curves and settings of a run.

    Sections without results are left out.

        carb report --out report-tuesday.html
    """
    from rich.console import Console

    from pipeline.config.clip import knows_drawings_only
    from pipeline.config.params import load_params
    from pipeline.report.page import write_report
    from pipeline.report.results import RunResults, print_summary
    from pipeline.system.outputs import outputs

    sources = {"--results": results, "--index": index, "--params": params}
    with outputs("report", files={"--out": out}, sources=sources):
        found, settings = RunResults.read(results, index), load_params(params)
        carb, steps = settings.carb, settings.train.steps
        write_report(
            found,
            out,
            settings=settings.model_dump(mode="json"),
            carb=carb,
            steps=steps,
            local_views=settings.train.local_term and len(settings.clip.levels) > 1,
            clip_of_drawings=settings.dataset.name != "demo" and knows_drawings_only(settings.clip),
            palette=settings.pictures.palette,
        )
    console = Console(markup=False, highlight=False, emoji=False)
    print_summary(found, console, carb=carb, steps=steps)


if __name__ == "__main__":
    app()
