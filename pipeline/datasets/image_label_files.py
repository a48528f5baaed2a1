"""Image-level labels written by users: CSV, JSON, or the CARB authors' ``labels.npy``.

A CSV has one of two forms:

``photo,road,car``   one column per class: 1, x or TRUE where it is present; 0, FALSE or empty
                     where it is not
``photo,tags``       the classes present, separated by ``|``, ``;`` or commas
"""

import csv
import difflib
import json
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.datasets.authors_labels import read_npy_dict
from pipeline.scenes.image_folder import PhotoNames
from pipeline.scenes.image_labels import ImageLabels
from pipeline.system.text import error_text, short_repr

Row = tuple[int, list[str]]  # line number, cells
DELIMITERS = ",;\t"
PHOTO_COLUMNS = ("photo", "key", "image", "file", "filename", "name")
TAG_COLUMNS = ("tags", "labels", "classes")
# pandas writes 1.0 in columns with gaps.
_YES = {"1", "1.0", "x", "true", "yes"}
_NO = {"0", "0.0", "", "-", "false", "no"}


class ClassNames:
    """Classes by name; case and surrounding spaces do not matter where that is unambiguous."""

    def __init__(self, classes: list[str]) -> None:
        self.classes = classes
        loose = [name.strip().casefold() for name in classes]
        self._exact = {name: index for index, name in enumerate(classes)}
        self._loose = {name: index for index, name in enumerate(loose) if loose.count(name) == 1}

    def index(self, written: str) -> int | None:
        """The index of a class, or None."""
        return self._exact.get(written, self._loose.get(written.strip().casefold()))

    def unknown(self, written: str) -> str:
        """Error text for a name that is not a class."""
        near = difflib.get_close_matches(written.strip().lower(), self.classes, n=1)
        meant = f"; did you mean {short_repr(near[0])}?" if near else ""
        return f"{short_repr(written.strip())}, which is not a class{meant}"

    def header_error(self, path: Path, found: str) -> ValueError:
        """The error about the header of a CSV."""
        return ValueError(
            f"{path}: the header {found}; it must be 'photo' and a column for each of the "
            f"{len(self.classes)} classes ({', '.join(self.classes)}), or 'photo,tags'"
        )


def read_label_file(path: Path, classes: list[str]) -> ImageLabels:
    """Read image-level labels; the file's ending decides the format.

    Args:
        path: ``.csv`` or ``.tsv``, see above; ``.json``, an object of ``key: [class, ...]``; or
            ``.npy`` as CARB's authors ship it, a pickled dict of ``key: [C] 0/1``, of which only
            arrays, numbers and strings are read.
        classes: class names, by index.

    Returns:
        ``[C]`` bool per key.

    Raises:
        ValueError: the file is missing or invalid; names the file, and the line of a CSV.
    """
    read = _READERS.get(path.suffix.lower())
    if read is None:
        raise ValueError(f"{path}: image-level labels must be a .csv, .tsv, .json or .npy file")
    if not path.exists() and path.parent.is_dir():
        near = [one.name for one in path.parent.iterdir() if one.name.lower() == path.name.lower()]
        if near:
            raise ValueError(f"{path}: no such file, but {near[0]} is there; rename one of them")
    return read(path, classes)


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
    known = ClassNames(classes)
    for key, names in content.items():
        valid = isinstance(names, list) and all(isinstance(name, str) for name in names)
        found = [known.index(name) for name in names] if valid else [None]
        if None in found:
            raise ValueError(
                f"{path}: {short_repr(key)} must have a list of classes ({', '.join(classes)}), "
                f"got {short_repr(names)}"
            )
        labels[key] = np.array([index in found for index in range(len(classes))])
    return labels


def _refuse_twice(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict[str, Any]()
    for key, value in pairs:
        if key in found:
            raise ValueError(f"names {short_repr(key)} twice; keep one")
        found[key] = value
    return found


def _read_npy(path: Path, classes: list[str]) -> ImageLabels:
    try:
        content = read_npy_dict(path.read_bytes())
    except Exception as error:  # a hostile or damaged file may raise any kind
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
                f"classes, got an array of {shape}; check that the file belongs to this data set"
            )
        labels[key] = row.astype(bool)
    return labels


def _read_table(path: Path, classes: list[str]) -> ImageLabels:
    names, (header, *rows) = ClassNames(classes), read_rows(path) or [(1, [])]
    cells = header[1]
    if not cells or cells[0].strip().lower() not in PHOTO_COLUMNS:
        found = f"begins with {short_repr(cells[0])}" if cells else "is missing: the file is empty"
        raise names.header_error(path, found)
    if len(cells) == 2 and cells[1].strip().lower() in TAG_COLUMNS:
        parse: Callable[[list[str]], np.ndarray] = partial(_parse_tags, names=names)
    else:
        columns = _class_columns(path, cells, names)
        parse = partial(_parse_columns, columns=columns, width=len(cells) - 1)
    labels: ImageLabels = {}
    for number, (key, *values) in rows:
        try:
            if key in labels:
                raise ValueError(f"names {short_repr(key)} again; keep one line")
            labels[key] = parse(values)
        except ValueError as error:
            raise ValueError(f"{path}: line {number} {error}") from None
    return labels


def _parse_tags(cells: list[str], names: ClassNames) -> np.ndarray:
    """The classes in the cells behind a photo's name, ``[C]`` bool."""
    row = np.zeros(len(names.classes), dtype=bool)
    # Where the delimiter of cells also separates tags, they fill several cells.
    for tag in re.split(r"[|;,]", "|".join(cells)):
        index = names.index(tag)
        if index is not None:
            row[index] = True
        elif tag.strip():
            raise ValueError(f"has the tag {names.unknown(tag)}")
    return row


def _parse_columns(cells: list[str], columns: list[int], width: int) -> np.ndarray:
    """The values in the cells behind a photo's name, ``[C]`` bool; ``columns`` by class index."""
    # Excel may end a row before its empty cells, but a row with zeros must be complete.
    if len(cells) > width or (len(cells) < width and "0" in cells):
        raise ValueError(
            f"has {len(cells) + 1} columns, the header {width + 1}; write a cell for each of the "
            f"{len(columns)} classes"
        )
    full = cells + [""] * (width - len(cells))
    values = [full[column].strip().lower() for column in columns]
    odd = next((value for value in values if value not in _YES | _NO), None)
    if odd is not None:
        raise ValueError(
            f"contains {short_repr(odd)}; write 1 or x where the class is in the photo, and 0 or "
            "nothing where it is not"
        )
    return np.array([value in _YES for value in values])


def _class_columns(path: Path, header: list[str], names: ClassNames) -> list[int]:
    """The column of each class, counted without the first.

    Raises:
        ValueError: a column is of no class, or a class has none or two.
    """
    found = [names.index(cell) for cell in header[1:]]
    if None in found:
        unknown = names.unknown(header[1 + found.index(None)])
        raise names.header_error(path, f"has the column {unknown}")
    for index, name in enumerate(names.classes):
        if found.count(index) != 1:
            count = "two columns" if index in found else "no column"
            raise names.header_error(path, f"has {count} of {short_repr(name)}")
    return [found.index(index) for index in range(len(names.classes))]


_READERS = {".csv": _read_table, ".tsv": _read_table, ".json": _read_json, ".npy": _read_npy}


def read_rows(path: Path) -> list[Row]:
    """Read the non-empty rows of a CSV, without the empty cells at their ends.

    The first line decides the delimiter: Excel writes semicolons where the comma is the decimal
    sign, and fills rows with empty cells. A first line ``sep=;`` names it and is not a row.

    Raises:
        ValueError: the file is missing, not UTF-8, or not a CSV.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as handle:
            first = handle.readline()
            asked = re.fullmatch(r'"?sep=([,;|\t])"?\s*', first, re.IGNORECASE)
            if asked is None:
                handle.seek(0)
            reader = csv.reader(handle, delimiter=asked[1] if asked else _delimiter(first))
            skipped = 0 if asked is None else 1
            rows = [(reader.line_num + skipped, _trimmed(cells)) for cells in reader]
    except UnicodeDecodeError as error:
        raise ValueError(
            f"{path}: not readable as CSV ({error_text(error)}); save it as UTF-8, in Excel as "
            "'CSV UTF-8'"
        ) from None
    except (OSError, csv.Error) as error:
        raise ValueError(
            f"{path}: not readable as CSV ({error_text(error)}); check the file"
        ) from None
    return [(number, cells) for number, cells in rows if cells]


def _delimiter(line: str) -> str:
    """The delimiter that ends the first cell of a line; a comma if none does."""
    line = line.lstrip("\ufeff")
    if line.startswith('"'):
        line = line[1:].partition('"')[2]
    found = [(line.index(sign), sign) for sign in DELIMITERS if sign in line]
    return min(found)[1] if found else ","


def _trimmed(cells: list[str]) -> list[str]:
    while cells and not cells[-1]:
        cells = cells[:-1]
    return cells


def match_keys(labels: ImageLabels, keys: list[str], path: Path) -> ImageLabels:
    """Rename labels to the keys of scenes, see `PhotoNames`.

    An authors' ``.npy`` holds every split, so its labels of other photos are ignored.

    Raises:
        ValueError: a label matches no photo or two, or two labels match one; names it.
    """
    names = PhotoNames(keys)
    found: dict[str, str] = {}
    unknown = []
    for written in labels:
        match names.find(written):
            case []:
                unknown.append(written)
            case [key] if key not in found:
                found[key] = written
            case [key]:
                raise ValueError(
                    f"{path}: {_line_of(path, written)}names {short_repr(found[key])} and "
                    f"{short_repr(written)}, the same photo; keep one"
                )
            case [key, other]:
                raise ValueError(
                    f"{path}: {_line_of(path, written)}{short_repr(written)} is ambiguous: it "
                    f"matches {short_repr(key)} and {short_repr(other)}; give a longer path"
                )
    if unknown and (path.suffix.lower() != ".npy" or not found):
        raise ValueError(
            f"{path}: {_line_of(path, unknown[0])}labels {short_repr(unknown[0])}, but the data "
            f"set has no such photo ({names.hint(unknown[0])}); correct the name, or remove it"
        )
    return {key: labels[found[key]] for key in keys if key in found}


def _line_of(path: Path, key: str) -> str:
    """Where a CSV names a photo, for messages: ``line 3 ``; empty for another file."""
    if path.suffix.lower() not in (".csv", ".tsv") or not path.is_file():
        return ""
    return next((f"line {number} " for number, cells in read_rows(path) if cells[0] == key), "")
