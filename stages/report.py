"""Put a run into one HTML file, and say where everything lies. Reads the results of the other
stages; writes the report. It opens no photo and no human mask."""

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
    results: Annotated[Path, typer.Option(help="Folder of the stages' results.")] = Path("results"),
    index: Annotated[Path, typer.Option(help="Index of the photos.")] = Path("data/scenes.json"),
    out: Annotated[Path, typer.Option(help="File to write.")] = Path("results/report.html"),
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
) -> None:
    """Put a run into one HTML file that needs nothing else: to read, to print, to mail.

    Figures, panels, curves and settings are in it; what a data set cannot give is left out.

        carb report --out report-of-tuesday.html
    """
    from rich.console import Console

    from pipeline.config.params import load_params
    from pipeline.report.page import write_report
    from pipeline.report.results import RunResults
    from pipeline.report.summary import print_summary
    from pipeline.system.outputs import outputs

    sources = {"--results": results, "--index": index, "--params": params}
    with outputs("report", files={"--out": out}, sources=sources):
        found, settings = RunResults.read(results, index), load_params(params)
        write_report(found, settings, out)
    print_summary(found, settings, Console(markup=False, highlight=False, emoji=False))


if __name__ == "__main__":
    app()
