"""Command-line options shared by `predict`, `eval` and `export`; imports nothing slow."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

PANEL = "Test-time augmentation"

ModelOption = Annotated[Path, typer.Option(help="Folder of a trained segmenter.")]
ScaleOption = Annotated[
    list[float] | None,
    typer.Option(
        min=0.05,
        max=16,
        help="Image scale; repeat it to average over several.",
        rich_help_panel=PANEL,
    ),
]
FlipOption = Annotated[
    bool,
    typer.Option("--flip", help="Average with the mirror image.", rich_help_panel=PANEL),
]
WindowOption = Annotated[
    tuple[int, int] | None,
    typer.Option(min=1, help="Height and width of sliding windows.", rich_help_panel=PANEL),
]
EdgeRadiusOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Guided filter along image edges: radius in pixels of the base size.",
        rich_help_panel=PANEL,
    ),
]
FontOption = Annotated[
    Path | None, typer.Option(help="Font for class names (.ttf, .otf, .ttc); default DejaVu Sans.")
]


class MaskIdsChoice(StrEnum):
    """Kinds of ids in human masks; see `pipeline.datasets.mask_ids`."""

    auto = "auto"
    class_index = "class-index"
    train_ids = "train-ids"
    label_ids = "label-ids"


MaskIdsOption = Annotated[
    MaskIdsChoice,
    typer.Option(
        help="What the ids in the masks are, if they are ambiguous.",
        rich_help_panel="A folder of photos",
    ),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Predict finished photos and videos again.")
]


class PaletteChoice(StrEnum):
    """`PaletteName` of `pipeline.config` for the command line, without importing pydantic."""

    dataset = "dataset"
    colour_blind = "colour_blind"
