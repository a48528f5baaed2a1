"""`python -m stages.prepare propose-labels`: from parameters to what a person corrects."""

from pathlib import Path

from pipeline.clip.dense import as_the_authors, load_clip
from pipeline.clip.prompts import resolve_templates
from pipeline.config.params import load_params
from pipeline.datasets import open_dataset
from pipeline.datasets.collect import used_scenes
from pipeline.datasets.folder import photo_folder
from pipeline.datasets.remarks import tell_of_data
from pipeline.proposals.page import write_sheets
from pipeline.proposals.propose import SHEETS, check_no_labels, propose, write_proposals
from pipeline.report.fonts import use_font
from pipeline.system.command import memory_hint, start_fabric
from pipeline.system.output_folders import outputs


def propose_labels(params: Path, *, threshold: float, force: bool) -> None:
    """Let the CLIP of a parameter file propose the labels of one's own photos.

    Args:
        params: the parameter file.
        threshold: a class is proposed from this confidence on.
        force: write a new ``labels.csv`` and keep the earlier one as ``labels.1.csv``.

    Raises:
        ValueError: the data set is none of one's own, or has labels.
    """
    settings = load_params(params)
    named, asked = settings.dataset, settings.clip
    if named.name != "folder":
        raise ValueError(
            f"{params}: dataset.name must be 'folder' to have labels proposed, got '{named.name}'; "
            "the labels of other data sets are simulated from their masks"
        )
    dataset = open_dataset(named.name, named.root)
    check_no_labels(dataset.root, force=force)
    tell_of_data(dataset, used_scenes(dataset))
    sheets = dataset.root / SHEETS
    written = outputs("propose-labels", folders={"the folder of proposals": sheets})
    home = photo_folder(dataset.root)
    photos = [s.image.relative_to(home).as_posix() for s in dataset.scenes("train")]
    use_font(settings.pictures.font, [*dataset.label_space.names, *photos])
    clip = load_clip(asked.model, asked.pretrained)
    clip = as_the_authors(clip, normalisation=asked.normalisation, activation=asked.activation)
    hint = "lower the windows of params.yaml: clip.levels, or take a smaller clip.model"
    with written, memory_hint(hint):
        found = propose(
            start_fabric(asked.precision),
            clip,
            dataset,
            levels=list(asked.levels.values()),
            words=dataset.label_space.words(asked.class_prompts),
            templates=resolve_templates(asked.templates),
        )
        write_sheets(sheets, found, dataset.label_space, threshold=threshold)
    write_proposals(dataset.root, found, dataset.label_space.names, threshold=threshold)
