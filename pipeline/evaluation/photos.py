"""Which photos are scored: those with human masks, of which ``eval.photos`` may list some."""

import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from pipeline.datasets.base import Dataset, Scene
from pipeline.scenes.image_labels import ImageLabels
from pipeline.scenes.image_names import PhotoNames
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.text import first_few, short_repr

log = logging.getLogger("carb")


def scenes_of(dataset: Dataset, split: str) -> list[Scene]:
    """Photos of a split; none where the data set has no such split."""
    return dataset.scenes(split) if split in dataset.splits else []


def listed(scenes: Sequence[Scene], path: Path) -> list[Scene]:
    """Those photos that a file names, one a line, by any name that labels may have, too; those
    without a human mask are named and left out.

    Args:
        scenes: the validation photos.
        path: the file.

    Raises:
        ValueError: the file is missing, or names no photo with a mask, or one that is not there.
    """
    if not path.is_file():
        raise ValueError(f"params.yaml: eval.photos: {path}: no such file; name one key a line")
    lines = path.read_text("utf-8-sig", errors="replace").splitlines()
    known = {scene.key: scene for scene in scenes}
    names = PhotoNames(list(known))
    chosen: dict[str, Scene] = {}
    faults = [] if any(map(str.strip, lines)) else ["it is empty"]
    for line in filter(str.strip, lines):
        meant = names.find(line)
        if len(meant) == 1:
            chosen[meant[0]] = known[meant[0]]
        elif meant:
            faults.append(
                f"{short_repr(line)} may be {short_repr(meant[0])} or {short_repr(meant[1])}"
            )
        else:
            faults.append(f"{short_repr(line)} is none ({names.hint(line)})")
    without = [key for key, scene in chosen.items() if scene.mask is None]
    if not faults and len(without) == len(chosen):
        faults = [f"{short_repr(without[0])} has no human mask"]
    if faults:
        raise ValueError(
            f"{path} (params.yaml: eval.photos): must hold keys of validation photos with human "
            f"masks, one a line, such as '{next(iter(known), '')}'; {faults[0]}"
        )
    _tell_left_out(without, "photos without a human mask, which are not scored", path)
    return annotated(list(chosen.values()))


def _tell_left_out(keys: Sequence[str], what: str, source: Path | str) -> None:
    """One line for the photos that something is left out of."""
    if keys:
        log.warning("%s: %s (%d): %s", source, what, len(keys), first_few(keys))


def annotated(scenes: Sequence[Scene]) -> list[Scene]:
    """Those photos that have human masks."""
    return [scene for scene in scenes if scene.mask is not None]


def tell_of_unseen(matrix: np.ndarray, classes: Sequence[str]) -> None:
    """Name the classes that no mask shows, by a confusion matrix ``[C, C]``, rows = mask.

    Masks of 0 and 255 show one class: 255 is ignored.
    """
    pixels = np.asarray(matrix).sum(axis=1) + getattr(matrix, "missed", 0)
    unseen = [name for name, count in zip(classes, pixels, strict=True) if not count]
    if unseen:
        log.warning(
            "human masks: none shows %s; masks hold class indices from 0, and 255 is ignored",
            first_few(unseen),
        )


def pseudo_scenes(
    store: PseudoMaskStore,
    labels: ImageLabels,
    dataset: Dataset,
    split: str,
    photos: str | None,
) -> tuple[list[Scene], list[Scene]]:
    """The photos whose pseudo-masks are scored, and all that have some; the others are named."""
    every = scenes_of(dataset, split)
    listing = photos if split == "val" else None
    chosen = annotated(every) if listing is None else listed(every, Path(listing))
    labelled = with_logits([scene for scene in every if scene.key in labels], store)
    usable = {scene.key for scene in labelled}
    without = [scene.key for scene in chosen if scene.key not in labels]
    if listing or labelled:
        what = "photos with a human mask but no image-level label; pseudo-masks not scored"
        _tell_left_out(without, what, listing or split)
    return [scene for scene in chosen if scene.key in usable], labelled


def with_logits(scenes: Sequence[Scene], store: PseudoMaskStore) -> list[Scene]:
    """Those photos that the store holds; the others are named."""
    keys = set(store.keys)
    missing = [scene.key for scene in scenes if scene.key not in keys]
    what = "photos that it lacks; pseudo-masks not scored, `dvc repro pseudo` adds them"
    _tell_left_out(missing, what, store.path)
    return [scene for scene in scenes if scene.key in keys]
