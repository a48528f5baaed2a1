"""Folds of the training images: neighbours in time stay together."""

from collections.abc import Callable, Sequence
from itertools import groupby
from pathlib import PurePosixPath


def folds_of(keys: Sequence[str], count: int) -> list[int]:
    """The fold of each image: contiguous blocks within each drive.

    Frames of one drive look alike: a segmenter trained on a frame's neighbours would repeat the
    errors of that frame's labels.

    Args:
        keys: of the images, those of a drive next to each other.
        count: number of folds.

    Returns:
        fold numbers, 0 to ``count - 1``.

    Raises:
        ValueError: there are fewer images than folds.
    """
    if len(keys) < count:
        raise ValueError(
            f"params.yaml: relabel.folds must be at most the number of training images "
            f"({len(keys)}), got {count}; lower it"
        )
    drives = [len(list(frames)) for _, frames in groupby(keys, key=_drive_of(keys))]
    if min(drives) < count:  # no drives in the names
        drives = [len(keys)]
    return [place * count // length for length in drives for place in range(length)]


def _drive_of(keys: Sequence[str]) -> Callable[[str], str]:
    """Names a key's drive: its folder if there are several, else its name before the first "_"."""
    if len({PurePosixPath(key).parent for key in keys}) > 1:
        return lambda key: str(PurePosixPath(key).parent)
    return lambda key: PurePosixPath(key).name.partition("_")[0]
