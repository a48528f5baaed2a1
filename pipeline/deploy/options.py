"""Command-line options of `predict`, `eval` and `export`, without slow imports."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer


def _option(panel: str, *names: str, help: str, **limits: float) -> Any:
    """An option under a heading of its own in the help text."""
    return typer.Option(*names, help=help, rich_help_panel=panel, **limits)  # type: ignore[arg-type]


class MaskIdsChoice(StrEnum):
    """Kinds of ids in human masks; see `pipeline.datasets.mask_ids`."""

    auto = "auto"
    class_index = "class-index"
    train_ids = "train-ids"
    label_ids = "label-ids"


class PaletteChoice(StrEnum):
    """`PaletteName` of `pipeline.config`, without importing pydantic."""

    dataset = "dataset"
    colour_blind = "colour_blind"


class MaskFormatChoice(StrEnum):
    """`MaskFormat` of `pipeline.deploy.prediction_files`."""

    palette = "palette"
    ids = "ids"
    coco_rle = "coco-rle"

    @property
    def ending(self) -> str:
        """Of a mask's file."""
        return ".json" if self is MaskFormatChoice.coco_rle else ".png"


ModelOption = Annotated[Path, typer.Option(help="Folder of a trained segmenter.")]
FontOption = Annotated[
    Path | None, typer.Option(help="Font for class names (.ttf, .otf, .ttc); default DejaVu Sans.")
]
ForceOption = Annotated[
    bool, typer.Option("--force", help="Predict finished photos and videos again.")
]

SourcesArgument = Annotated[
    list[Path],
    typer.Argument(
        help="Photos, videos, folders, quoted patterns such as 'rides/**/*.jpg', and text files "
        "(.txt) that list them.",
        show_default=False,
    ),
]
EnsembleOption = Annotated[
    list[Path] | None,
    typer.Option(help="Another segmenter to average the probabilities with; repeat for more."),
]
OutOption = Annotated[Path, typer.Option(help="Folder to write.")]
RecursiveOption = Annotated[bool, typer.Option(help="Search folders at any depth.")]
FormatOption = Annotated[
    MaskFormatChoice,
    typer.Option(
        "--format", help="Masks as PNGs with colours, grey PNGs of class ids, or COCO's JSON."
    ),
]
PaletteOption = Annotated[PaletteChoice, typer.Option(help="Colours of the classes.")]
FramesOption = Annotated[
    bool,
    typer.Option("--frames", help="For videos, also write the mask and confidence of each frame."),
]
LegendOption = Annotated[bool, typer.Option(help="For videos, name the classes below the frames.")]

_AUGMENTATION = "Test-time augmentation"
ScaleOption = Annotated[
    list[float] | None,
    _option(_AUGMENTATION, help="Image scale; repeat to average over several.", min=0.05, max=16),
]
FlipOption = Annotated[
    bool, _option(_AUGMENTATION, "--flip", help="Average with the mirror image.")
]
WindowOption = Annotated[
    tuple[int, int] | None,
    _option(_AUGMENTATION, help="Height and width of sliding windows in pixels.", min=1),
]
EdgeRadiusOption = Annotated[
    int | None,
    _option(
        _AUGMENTATION,
        help="Radius of a guided filter along image edges, in pixels of the base size.",
        min=1,
    ),
]

_FOLDER = "A folder of photos"
ImagesOption = Annotated[Path | None, _option(_FOLDER, help="Photos to predict.")]
MasksOption = Annotated[Path | None, _option(_FOLDER, help="Their human masks, PNGs of ids.")]
MaskIdsOption = Annotated[
    MaskIdsChoice, _option(_FOLDER, help="Kind of ids in the masks, if it is ambiguous.")
]
SubmissionOption = Annotated[
    bool, _option(_FOLDER, "--submission", help="Also write files for the Cityscapes server.")
]

_PIPELINE = "In the pipeline"
StoreOption = Annotated[Path, _option(_PIPELINE, help="Pseudo-masks.")]
LabelsOption = Annotated[Path, _option(_PIPELINE, help="Image-level labels.")]
SummaryOption = Annotated[Path, _option(_PIPELINE, help="Main metrics, for DVC.")]
PreviewsOption = Annotated[Path | None, _option(_PIPELINE, help="Previews from training to draw.")]
ParamsOption = Annotated[Path, _option(_PIPELINE, help="Parameter file.")]


def check_folder_options(images: Path | None, given: bool) -> None:
    """Raise ValueError if options for a folder of photos are given without ``--images``."""
    if images is None and given:
        raise ValueError(
            "--masks, --ensemble, --scale, --flip, --window, --edge-radius, --submission, --font "
            "and --force need a folder of photos; give it with --images, or set params.yaml: eval "
            "and pictures for the evaluation in the pipeline"
        )
