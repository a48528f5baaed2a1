"""Image-level labels as people have them: a CSV, a JSON, or ``labels.npy`` of CARB's authors."""

import csv
import difflib
import json
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.files import atomic_path
from pipeline.label_tables import line_of, read_label_table
from pipeline.pickled_labels import labels_in
from pipeline.scene import PHOTO_ENDINGS
from pipeline.wording import one_line, shown

ImageLabels = dict[str, np.ndarray]  # key -> [C] bool


def write_image_labels(path: Path, labels: ImageLabels, classes: list[str]) -> None:
    """Write ``key,<class>,...`` with 0/1, one line a photo."""
    with atomic_path(path) as draft, draft.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["key", *classes])
        writer.writerows([key, *row.astype(int)] for key, row in labels.items())


def read_label_file(path: Path, classes: list[str]) -> ImageLabels:
    """Read image-level labels; the ending of the file's name tells its format.

    Args:
        path: ``.csv`` with a column a class or with tags, see `pipeline.label_tables`; or
            ``.json``, an object of ``key: [class, ...]``; or ``.npy`` as CARB's authors ship, a
            pickled dict of ``key: [C] 0/1``, of which only arrays, numbers and strings are read.
        classes: class names, by index.

    Returns:
        a row ``[C]`` bool for each key.

    Raises:
        ValueError: the file is missing or of another content; names the file and what was found.
    """
    readers = {".csv": read_label_table, ".json": _read_json, ".npy": _read_npy}
    if path.suffix not in readers:
        raise ValueError(f"{path}: image-level labels must be a .csv, .json or .npy file")
    return readers[path.suffix](path, classes)


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"names {shown(twice)} again; keep one")
    return found


def _read_json(path: Path, classes: list[str]) -> ImageLabels:
    try:
        content = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=_refuse_twice)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: not readable as JSON ({one_line(error)}); check the file"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must be an object of key: [class, ...], got {shown(content)}")
    labels: ImageLabels = {}
    for key, names in content.items():
        if not isinstance(names, list) or any(name not in classes for name in names):
            raise ValueError(
                f"{path}: {shown(key)} must have a list of classes ({', '.join(classes)}), got "
                f"{shown(names)}"
            )
        labels[key] = np.isin(classes, names)
    return labels


def _read_npy(path: Path, classes: list[str]) -> ImageLabels:
    try:
        content = labels_in(path.read_bytes())
    except Exception as error:  # a hostile or damaged file may raise anything
        raise ValueError(
            f"{path}: not readable as labels.npy ({one_line(error)}); check the file"
        ) from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: must hold a dict of key: [C] 0/1, got {type(content).__name__}")
    labels: ImageLabels = {}
    for key, row in content.items():
        fits = isinstance(row, np.ndarray) and row.shape == (len(classes),)
        if not isinstance(key, str) or not fits or not np.isin(row, (0, 1)).all():
            shape = getattr(row, "shape", type(row).__name__)
            raise ValueError(
                f"{path}: {shown(key)} must have 0 or 1 for each of the {len(classes)} classes, "
                f"got an array of {shape}; check that the file belongs to this data set"
            )
        labels[key] = row.astype(bool)
    return labels


def _plain(name: str) -> str:
    """A name of a photo as names are compared, whatever system wrote it.

    Macs take letters with accents apart, Windows writes backslashes.
    """
    return unicodedata.normalize("NFC", name.strip()).replace("\\", "/")


def _without_ending(name: str) -> str:
    """A name without the ending of a photo's file."""
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in PHOTO_ENDINGS else name


def _tails(key: str) -> list[str]:
    """A path and its ends: ``a/b/c``, ``b/c``, ``c``."""
    parts = key.split("/")
    return ["/".join(parts[start:]) for start in range(len(parts))]


def match_keys(labels: ImageLabels, keys: list[str], path: Path) -> ImageLabels:
    """Rename labels to the keys of scenes.

    A file may name a photo by its key or by its path, whole or an end of it, with or without the
    file's ending: the longest end that a key has too decides. The authors' ``.npy`` hold every
    split, so labels of photos that are not there are left out of those.

    Raises:
        ValueError: a label is of no photo or of two, or two labels are of one; names it.
    """
    ends: dict[str, str] = {}  # end of a path -> the first key that ends so
    others: dict[str, str] = {}  # -> the second one
    for key in keys:
        for tail in _tails(_plain(key)):
            if ends.setdefault(tail, key) != key:
                others.setdefault(tail, key)
    found: dict[str, str] = {}
    unknown = []
    for written in labels:
        name = _plain(written)
        tails = _tails(_without_ending(name)) + _tails(name)
        end = next((tail for tail in tails if tail in ends), None)
        if end is None:
            unknown.append(written)
        elif end in others:
            raise ValueError(
                f"{path}: {line_of(path, written)}labels {shown(written)}, and two photos end so "
                f"({shown(ends[end])}, {shown(others[end])}); write more of their paths"
            )
        elif ends[end] in found:
            raise ValueError(
                f"{path}: {line_of(path, written)}names {shown(found[ends[end]])} and "
                f"{shown(written)}, the same photo; keep one"
            )
        else:
            found[ends[end]] = written
    if unknown and (path.suffix != ".npy" or not found):
        raise ValueError(f"{path}: {_stranger(unknown[0], path, keys, list(ends))}")
    return {key: labels[found[key]] for key in keys if key in found}


def _stranger(written: str, path: Path, keys: list[str], ends: list[str]) -> str:
    """What to say of labels of a photo that is not there."""
    near = difflib.get_close_matches(_without_ending(_plain(written)), ends, n=1, cutoff=0.8)
    hint = f"is {shown(near[0])} meant?" if near else f"they are named like {shown(keys[0])}"
    return (
        f"{line_of(path, written)}labels {shown(written)}, and no photo of the data set is named "
        f"so ({hint}); correct the name, or remove it"
    )
