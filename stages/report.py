"""Put a run into one HTML file, and say where everything lies. Reads the results of the other
stages; writes the report. It opens no photo and no human mask."""

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

    from pipeline.config import load_params
    from pipeline.html_report import write_report
    from pipeline.output_folders import outputs
    from pipeline.run_results import RunResults
    from pipeline.run_summary import print_summary

    sources = {"--results": results, "--index": index, "--params": params}
    with outputs("report", files={"--out": out}, sources=sources):
        found, settings = RunResults.read(results, index), load_params(params)
        write_report(found, settings, out)
    print_summary(found, settings, Console(markup=False, highlight=False, emoji=False))


if __name__ == "__main__":
    app()
