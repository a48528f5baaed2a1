"""Command-line options shared by `predict`, `eval` and `export`; imports nothing slow."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


def at_test_time(*names: str, help: str, **limits: float) -> Any:
    """An option of test-time augmentation."""
    panel = "Test-time augmentation"
    return typer.Option(*names, help=help, rich_help_panel=panel, **limits)  # type: ignore[arg-type]


ModelOption = Annotated[Path, typer.Option(help="Folder of a trained segmenter.")]
ScaleOption = Annotated[
    list[float] | None,
    at_test_time(help="Image scale; repeat it to average over several.", min=0.05, max=16),
]
FlipOption = Annotated[bool, at_test_time("--flip", help="Average with the mirror image.")]
WindowOption = Annotated[
    tuple[int, int] | None, at_test_time(help="Height and width of sliding windows.", min=1)
]
EdgeRadiusOption = Annotated[
    int | None,
    at_test_time(help="Guided filter along image edges: radius in pixels of the base size.", min=1),
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
