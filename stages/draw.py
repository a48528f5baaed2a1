"""Demo data set: synthetic street scenes with exact masks, generated from a seed (no charts)."""

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
    out: Annotated[Path, typer.Option(help="Folder of the data set; replaced.")] = Path(
        "data/demo"
    ),
    train: Annotated[int, typer.Option(min=1, help="Training scenes.")] = 120,
    val: Annotated[int, typer.Option(min=1, help="Validation scenes.")] = 40,
    seed: Annotated[int, typer.Option(min=0, help="Different seeds give different scenes.")] = 0,
    params: Annotated[
        Path | None,
        typer.Option(
            help="Generate only if this file's dataset.root is --out.", show_default="always"
        ),
    ] = None,
) -> None:
    """Generate the demo data set: synthetic street scenes with exact masks.

    It draws no charts or panels. Other data sets do not need this stage. A few scenes for tests:

        carb draw --out scenes --train 8 --val 4 --seed 3
    """
    from demo.drawn_dataset import draw_split
    from pipeline.config.base import Sections, load_sections
    from pipeline.config.dataset import DatasetParams
    from pipeline.system.files import NOTHING, atomic_path
    from pipeline.system.outputs import outputs

    class Settings(Sections):
        dataset: DatasetParams

    with outputs("draw", folders={"--out": out}), atomic_path(out) as draft:
        if params is not None:
            root = Path(load_sections(params, Settings).dataset.root)
            if root.resolve() != out.resolve():  # DVC expects the output
                draft.mkdir(parents=True)
                (draft / NOTHING).write_text("dataset.root is another folder\n", "utf-8")
                return
        draw_split(draft, "train", seed=2 * seed, count=train)
        draw_split(draft, "val", seed=2 * seed + 1, count=val)


if __name__ == "__main__":
    app()
