"""Image-level labels from outside: CSV, JSON, or the CARB authors' ``labels.npy``."""

import json
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datasets.carb_npy import labels_in
from pipeline.datasets.label_table import Names, line_of, read_label_table
from pipeline.scenes.image_labels import ImageLabels
from pipeline.scenes.image_names import PhotoNames
from pipeline.system.text import error_text, short_repr


def read_label_file(path: Path, classes: list[str]) -> ImageLabels:
    """Read image-level labels; the ending of the file's name tells its format.

    Args:
        path: ``.csv`` or ``.tsv`` with one column per class or with tags, see
            `label_table`; or ``.json``, an object of ``key: [class, ...]``; or ``.npy``
            as CARB's authors ship, a pickled dict of ``key: [C] 0/1``, of which only arrays,
            numbers and strings are read.
        classes: class names, by index.

    Returns:
        a row ``[C]`` bool for each key.

    Raises:
        ValueError: the file is missing or of another content; names the file and what was found.
    """
    readers = {".csv": read_label_table, ".json": _read_json, ".npy": _read_npy}
    readers[".tsv"] = read_label_table
    ending = path.suffix.lower()
    if ending not in readers:
        raise ValueError(f"{path}: image-level labels must be a .csv, .tsv, .json or .npy file")
    if not path.exists() and path.parent.is_dir():
        near = [one.name for one in path.parent.iterdir() if one.name.lower() == path.name.lower()]
        if near:
            raise ValueError(f"{path}: no such file, but {near[0]} is there; rename one of them")
    return readers[ending](path, classes)


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"names {short_repr(twice)} again; keep one")
    return found


def _read_json(path: Path, classes: list[str]) -> ImageLabels:
    try:
        content = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=_refuse_twice)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path}: not readable as JSON ({error_text(error)}); check the file"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path}: must be an object of key: [class, ...], got {short_repr(content)}"
        )
    labels: ImageLabels = {}
    known = Names(classes)
    for key, names in content.items():
        written = isinstance(names, list) and all(isinstance(name, str) for name in names)
        places = [known.place(name) for name in names] if written else [None]
        if None in places:
            raise ValueError(
                f"{path}: {short_repr(key)} must have a list of classes ({', '.join(classes)}), "
                "got "
                f"{short_repr(names)}"
            )
        labels[key] = np.array([place in places for place in range(len(classes))])
    return labels


def _read_npy(path: Path, classes: list[str]) -> ImageLabels:
    try:
        content = labels_in(path.read_bytes())
    except Exception as error:  # a hostile or damaged file may raise anything
        raise ValueError(
            f"{path}: not readable as labels.npy ({error_text(error)}); check the file"
        ) from None
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path}: must hold a dict of key: [C] 0/1, got {type(content).__name__}")
    labels: ImageLabels = {}
    for key, row in content.items():
        fits = isinstance(row, np.ndarray) and row.shape == (len(classes),)
        if not isinstance(key, str) or not fits or not np.isin(row, (0, 1)).all():
            shape = getattr(row, "shape", type(row).__name__)
            raise ValueError(
                f"{path}: {short_repr(key)} must have 0 or 1 for each of the {len(classes)} "
                "classes, "
                f"got an array of {shape}; check that the file belongs to this data set"
            )
        labels[key] = row.astype(bool)
    return labels


def match_keys(labels: ImageLabels, keys: list[str], path: Path) -> ImageLabels:
    """Rename labels to the keys of scenes, see `pipeline.scenes.image_names`.

    The authors' ``.npy`` hold every split, so labels of photos that are not there are left out of
    those.

    Raises:
        ValueError: a label is of no photo or of two, or two labels are of one; names it.
    """
    names = PhotoNames(keys)
    found: dict[str, str] = {}
    unknown = []
    for written in labels:
        meant = names.find(written)
        if not meant:
            unknown.append(written)
        elif len(meant) > 1:
            raise ValueError(
                f"{path}: {line_of(path, written)}{short_repr(written)} is ambiguous: it matches "
                f"{short_repr(meant[0])} and {short_repr(meant[1])}; give a longer path"
            )
        elif meant[0] in found:
            raise ValueError(
                f"{path}: {line_of(path, written)}names {short_repr(found[meant[0]])} and "
                f"{short_repr(written)}, the same photo; keep one"
            )
        else:
            found[meant[0]] = written
    if unknown and (path.suffix.lower() != ".npy" or not found):
        raise ValueError(
            f"{path}: {line_of(path, unknown[0])}labels {short_repr(unknown[0])}, and no photo of "
            "the "
            f"data set is named so ({names.hint(unknown[0])}); correct the name, or remove it"
        )
    return {key: labels[found[key]] for key in keys if key in found}
