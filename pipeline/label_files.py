"""Image-level labels as people have them: a CSV, a JSON, or ``labels.npy`` of CARB's authors."""

import csv
import io
import json
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.files import atomic_path
from pipeline.scene import PHOTO_ENDINGS

ImageLabels = dict[str, np.ndarray]  # key -> [C] bool
_ALLOWED = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy.core.multiarray", "scalar"),
    ("numpy._core.multiarray", "scalar"),
}


def write_image_labels(path: Path, labels: ImageLabels, classes: list[str]) -> None:
    """Write ``key,<class>,...`` with 0/1, one line a photo."""
    with atomic_path(path) as draft, draft.open("w", newline="", encoding="utf-8") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["key", *classes])
        writer.writerows([key, *row.astype(int)] for key, row in labels.items())


def read_label_file(path: Path, classes: list[str]) -> ImageLabels:
    """Read image-level labels; the ending of the file's name tells its format.

    Args:
        path: ``.csv`` with a header ``key,<class>,...`` and 0/1, the classes in any order; or
            ``.json``, an object of ``key: [class, ...]``; or ``.npy`` as CARB's authors ship, a
            pickled dict of ``key: [C] 0/1``, of which only arrays, numbers and strings are read.
        classes: class names, by index.

    Returns:
        a row ``[C]`` bool for each key.

    Raises:
        ValueError: the file is missing or of another content; names the file and what was found.
    """
    readers = {".csv": _read_csv, ".json": _read_json, ".npy": _read_npy}
    if path.suffix not in readers:
        raise ValueError(f"{path}: image-level labels must be a .csv, .json or .npy file")
    return readers[path.suffix](path, classes)


def _read_csv(path: Path, classes: list[str]) -> ImageLabels:
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            return _parse_csv(path, csv.reader(handle), classes)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not readable as CSV ({error}); check the file") from None


def _parse_csv(path: Path, rows: Iterator[list[str]], classes: list[str]) -> ImageLabels:
    header = next(rows, [])
    fault = _header_fault(header, classes)
    if fault:
        raise ValueError(
            f"{path}: the header must be 'key' and the {len(classes)} classes "
            f"({', '.join(classes)}), but {fault}"
        )
    order = [header.index(name) for name in classes]
    labels: ImageLabels = {}
    for number, row in enumerate(rows, start=2):
        wrong = set(row[1:]) - {"0", "1"}
        if wrong or len(row) not in (0, len(header)):
            found = repr(min(wrong)) if wrong else f"{len(row)} columns"
            raise ValueError(
                f"{path}: line {number} must be a key and 0 or 1 for each of the {len(classes)} "
                f"classes, got {found}"
            )
        if not row:  # an empty line
            continue
        if row[0] in labels:
            raise ValueError(f"{path}: line {number} names {row[0]!r} again; keep one of the lines")
        labels[row[0]] = np.array([row[column] == "1" for column in order])
    return labels


def _header_fault(header: list[str], classes: list[str]) -> str:
    """What is wrong with the header, or nothing."""
    if header and header[0].startswith("key;"):
        return "it is separated by semicolons; save it with commas"
    if header[:1] != ["key"]:
        return f"it begins with {header[0]!r}" if header else "the file is empty"
    unknown = set(header[1:]) - set(classes)
    if unknown:
        return f"{min(unknown)!r} is no class"
    for name in classes:
        if header.count(name) != 1:
            return f"{name!r} is {'there twice' if name in header else 'missing'}"
    return ""


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"names {twice!r} again; keep one")
    return found


def _read_json(path: Path, classes: list[str]) -> ImageLabels:
    try:
        content = json.loads(path.read_text("utf-8-sig"), object_pairs_hook=_refuse_twice)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path}: not readable as JSON ({error}); check the file") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path}: must be an object of key: [class, ...], got a {type(content)}")
    labels: ImageLabels = {}
    for key, names in content.items():
        if not isinstance(names, list) or any(name not in classes for name in names):
            raise ValueError(
                f"{path}: {key!r} must have a list of classes ({', '.join(classes)}), got {names}"
            )
        labels[key] = np.isin(classes, names)
    return labels


class _Arrays(pickle.Unpickler):
    """Unpickles numpy arrays, numbers, strings and containers; nothing that can act."""

    def find_class(self, module: str, name: str) -> Any:
        """Look up one of numpy's own constructors."""
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")
        return super().find_class(module, name)


def _read_npy(path: Path, classes: list[str]) -> ImageLabels:
    try:
        content = _unpickle(path.read_bytes())
    except Exception as error:  # a hostile or damaged pickle may raise anything
        raise ValueError(f"{path}: not readable as labels.npy ({error}); check the file") from None
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path}: must hold a dict of key: [C] 0/1, got {type(content).__name__}")
    labels: ImageLabels = {}
    for key, row in content.items():
        fits = isinstance(row, np.ndarray) and row.shape == (len(classes),)
        if not isinstance(key, str) or not fits or not np.isin(row, (0, 1)).all():
            shape = getattr(row, "shape", type(row).__name__)
            raise ValueError(
                f"{path}: {key!r} must have 0 or 1 for each of the {len(classes)} classes, got an "
                f"array of {shape}; check that the file belongs to this data set"
            )
        labels[key] = row.astype(bool)
    return labels


def _unpickle(content: bytes) -> Any:
    """The object in a ``.npy`` file of one pickled object."""
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    reader = {1: np.lib.format.read_array_header_1_0, 2: np.lib.format.read_array_header_2_0}
    shape, _, dtype = reader[version[0]](file)
    if shape != () or dtype.kind != "O":
        raise ValueError(f"it holds an array {shape} of {dtype}, not a pickled dict")
    array = _Arrays(file).load()
    return array.item() if isinstance(array, np.ndarray) else array


def _without_ending(key: str) -> str:
    """A key without the ending of a photo's file."""
    return key[: -len(Path(key).suffix)] if Path(key).suffix.lower() in PHOTO_ENDINGS else key


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
        for tail in _tails(key):
            if ends.setdefault(tail, key) != key:
                others.setdefault(tail, key)
    found: dict[str, str] = {}
    unknown = []
    for written in labels:
        end = next((tail for tail in _tails(_without_ending(written)) if tail in ends), None)
        if end is None:
            unknown.append(written)
        elif end in others:
            raise ValueError(
                f"{path}: labels {written!r}, and two photos end so ({ends[end]!r}, "
                f"{others[end]!r}); write more of their paths"
            )
        elif ends[end] in found:
            raise ValueError(
                f"{path}: names {found[ends[end]]!r} and {written!r}, the same photo; keep one"
            )
        else:
            found[ends[end]] = written
    if not found:
        raise ValueError(
            f"{path}: labels {min(labels, default='')!r}, and no photo of the data set is named so "
            f"(they are named like {keys[0]!r}); check that the file belongs to this data set"
        )
    if unknown and path.suffix != ".npy":
        raise ValueError(
            f"{path}: labels {min(unknown)!r}, which is no photo of the data set; remove its line"
        )
    return {key: labels[found[key]] for key in keys if key in found}
