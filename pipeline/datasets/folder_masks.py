"""Masks of a person's photos, matched by their names."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.scenes.image_folder import look_below
from pipeline.scenes.image_names import plain, without_ending

# What programs write behind a photo's name.
_SUFFIX = re.compile(
    "[ ._-](masks?|labels?|labelids|trainids|labeltrainids|gt|gtfine|seg|segmentation|annotation"
    "|l|leftimg8bit)$",
)


def shorter(name: str) -> Iterator[str]:
    """A mask's name without what programs add, step by step: ``a_mask.jpg``, ``a_mask``, ``a``."""
    name = name.casefold()
    yield name
    while True:
        short = without_ending(name)
        short = _SUFFIX.sub("", short) if short == name else short
        if short == name:
            return
        name = short
        yield name


def match_masks(folder: Path | None, names: Iterable[str]) -> dict[str, Path]:
    """The mask of each photo that has one: ``.png`` of the same path; where that is missing, the
    only file whose name differs by capitals, the photo's ending or a usual suffix.

    Args:
        folder: of the masks.
        names: paths of the photos below theirs, without ending.
    """
    if folder is None:
        return {}
    exact: dict[str, Path] = {}
    loose: dict[str, list[Path]] = {}
    for path in mask_files(folder):
        if path.suffix.lower() == ".png":
            name = plain(path.relative_to(folder).as_posix()[:-4])
            if name not in exact or path.suffix == ".png":
                exact[name] = path
            for short in shorter(name):
                loose.setdefault(short, []).append(path)
    wanted = {name: plain(name) for name in names}
    taken = {exact[name] for name in wanted.values() if name in exact}
    short_names = {name: list(shorter(name))[-1] for name in wanted.values()}
    counts = Counter(short_names.values())
    found = {}
    for name, written in wanted.items():
        near = [path for path in loose.get(short_names[written], []) if path not in taken]
        if written in exact:
            found[name] = exact[written]
        elif len(near) == 1 and counts[short_names[written]] == 1:
            found[name] = near[0]
    return found


def mask_files(folder: Path) -> list[Path]:
    """All files in the folder of masks and below it."""
    return look_below(folder, endings=()).others
