"""Selection of the images to evaluate: those with human masks or those listed in eval.photos."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.config.eval import EvalParams
from pipeline.datasets.base import Dataset, Scene
from pipeline.metrics import recall
from pipeline.scenes.image_folder import PhotoNames
from pipeline.scenes.image_labels import ImageLabels
from pipeline.segmenter.inference import TestTimeOptions
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.text import first_few, short_repr

log = logging.getLogger("carb")


def inference_options(params: EvalParams) -> TestTimeOptions:
    """Test-time augmentation as set in params.yaml."""
    return TestTimeOptions(tuple(params.scales), params.flip, params.window, params.edge_radius)


def scenes_of(dataset: Dataset, split: str) -> list[Scene]:
    """Images of a split; none if the data set has no such split."""
    return dataset.scenes(split) if split in dataset.splits else []


def annotated(scenes: Sequence[Scene]) -> list[Scene]:
    """The images that have human masks."""
    return [scene for scene in scenes if scene.mask is not None]


def listed(scenes: Sequence[Scene], path: Path) -> list[Scene]:
    """The images that a text file lists, one key per line, written as in a labels file.

    Images without a human mask are logged and left out.

    Args:
        scenes: the validation images.
        path: the text file.

    Raises:
        ValueError: the file is missing, lists an unknown or ambiguous image, or none with a mask.
    """
    if not path.is_file():
        raise ValueError(f"params.yaml: eval.photos: {path}: no such file; list one key per line")
    lines = path.read_text("utf-8-sig", errors="replace").splitlines()
    known = {scene.key: scene for scene in scenes}
    names = PhotoNames(list(known))
    chosen: dict[str, Scene] = {}
    faults = [] if any(map(str.strip, lines)) else ["the file is empty"]
    for line in filter(str.strip, lines):
        found = names.find(line)
        if len(found) == 1:
            chosen[found[0]] = known[found[0]]
        elif found:
            both = f"{short_repr(found[0])} and {short_repr(found[1])}"
            faults.append(f"{short_repr(line)} is ambiguous: it matches {both}")
        else:
            faults.append(f"{short_repr(line)} is not a validation photo ({names.hint(line)})")
    without = [key for key, scene in chosen.items() if scene.mask is None]
    if not faults and len(without) == len(chosen):
        faults = [f"{short_repr(without[0])} has no human mask"]
    if faults:
        raise ValueError(
            f"{path} (params.yaml: eval.photos): {faults[0]}; list keys of validation photos with "
            f"human masks, one per line, such as '{next(iter(known), '')}'"
        )
    _warn_left_out(without, "photos without a human mask are not scored", path)
    return annotated(list(chosen.values()))


def pseudo_scenes(
    store: PseudoMaskStore,
    labels: ImageLabels,
    dataset: Dataset,
    split: str,
    photos: str | None,
) -> tuple[list[Scene], list[Scene]]:
    """The images whose pseudo-masks are scored, and all with pseudo-masks; logs the others.

    Args:
        store: the pseudo-masks.
        labels: image-level labels.
        dataset: the data set.
        split: ``train`` or ``val``.
        photos: ``eval.photos``, which applies to validation images.
    """
    every = scenes_of(dataset, split)
    listing = photos if split == "val" else None
    chosen = annotated(every) if listing is None else listed(every, Path(listing))
    labelled = with_logits([scene for scene in every if scene.key in labels], store)
    usable = {scene.key for scene in labelled}
    if listing or labelled:
        without = [scene.key for scene in chosen if scene.key not in labels]
        what = "photos with a human mask but no image-level label; pseudo-masks not scored"
        _warn_left_out(without, what, listing or split)
    return [scene for scene in chosen if scene.key in usable], labelled


def with_logits(scenes: Sequence[Scene], store: PseudoMaskStore) -> list[Scene]:
    """The images that the store contains; logs the others."""
    keys = set(store.keys)
    missing = [scene.key for scene in scenes if scene.key not in keys]
    what = "no logits, so pseudo-masks not scored, run `dvc repro pseudo` to add them"
    _warn_left_out(missing, what, store.path)
    return [scene for scene in scenes if scene.key in keys]


def warn_unseen_classes(matrix: np.ndarray, classes: Sequence[str]) -> None:
    """Log the classes that no human mask contains, given a confusion matrix with rows = mask.

    This catches binary masks of 0 and 255, whose 255 would be ignored.
    """
    unseen = [name for name, share in zip(classes, recall(matrix), strict=True) if np.isnan(share)]
    if unseen:
        log.warning(
            "human masks: none contains %s; masks hold class indices from 0, and 255 is ignored",
            first_few(unseen),
        )


def _warn_left_out(keys: Sequence[str], what: str, source: Path | str) -> None:
    """Log one line for images that are left out."""
    if keys:
        log.warning("%s: %s (%d): %s", source, what, len(keys), first_few(keys))
