"""Options that several commands have: how photos are shown to a segmenter at test time."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

SHOWING = "How photos are shown"

ModelOption = Annotated[Path, typer.Option(help="Folder of a trained segmenter.")]
ScaleOption = Annotated[
    list[float] | None,
    typer.Option(
        min=0.05,
        max=16,
        help="Magnification to average over; repeat it.",
        rich_help_panel=SHOWING,
    ),
]
FlipOption = Annotated[
    bool, typer.Option("--flip", help="Average with the mirror image.", rich_help_panel=SHOWING)
]
WindowOption = Annotated[
    tuple[int, int] | None,
    typer.Option(min=1, help="Height and width of sliding windows.", rich_help_panel=SHOWING),
]
EdgeRadiusOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Let the answer follow the photo's edges: radius in pixels of the base size.",
        rich_help_panel=SHOWING,
    ),
]
FontOption = Annotated[
    Path | None, typer.Option(help="Font of class names (.ttf, .otf, .ttc); else DejaVu Sans.")
]


class MaskIdsChoice(StrEnum):
    """What the ids in human masks are; see `pipeline.datasets.mask_ids`."""

    auto = "auto"
    class_index = "class-index"
    train_ids = "train-ids"
    label_ids = "label-ids"


MaskIdsOption = Annotated[
    MaskIdsChoice,
    typer.Option(
        help="What the ids in the masks are, where it cannot be told.",
        rich_help_panel="A folder of photos",
    ),
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Predict finished photos and videos of this folder again.")
]


class PaletteChoice(StrEnum):
    """`PaletteName` of `pipeline.config` for the command line: help must not load pydantic."""

    dataset = "dataset"
    colour_blind = "colour_blind"
