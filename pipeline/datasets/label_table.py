"""Image-level labels in a CSV: a table of classes, or the tags of each photo in one cell.

``photo,road,car``   one column per class: 1, x or TRUE where it is present; 0, FALSE or nothing
                     where it is not
``photo,tags``       the classes present, separated by ``|``, ``;`` or commas
"""

import csv
import difflib
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from pipeline.system.text import error_text, short_repr

Row = tuple[int, list[str]]  # line number, cells
DELIMITERS = ",;\t"
PHOTO_COLUMNS = ("photo", "key", "image", "file", "filename", "name")
TAG_COLUMNS = ("tags", "labels", "classes")
# pandas writes 1.0 in columns with gaps.
_YES = {"1", "1.0", "x", "true", "yes"}
_NO = {"0", "0.0", "", "-", "false", "no"}


class Names:
    """Classes by their names as people write them: capitals and spaces around do not matter."""

    def __init__(self, classes: list[str]) -> None:
        self.classes = classes
        loose = [name.strip().casefold() for name in classes]
        self._exact = {name: place for place, name in enumerate(classes)}
        self._loose = {name: at for at, name in enumerate(loose) if loose.count(name) == 1}

    def place(self, written: str) -> int | None:
        """The index of a class, or None."""
        return self._exact.get(written, self._loose.get(written.strip().casefold()))

    def unknown(self, written: str) -> str:
        """What to say of a name that is no class."""
        near = difflib.get_close_matches(written.strip().lower(), self.classes, n=1)
        meant = f"; write {short_repr(near[0])}, if that is meant" if near else ""
        return f"{short_repr(written.strip())}, which is no class{meant}"


def read_label_table(path: Path, classes: list[str]) -> dict[str, np.ndarray]:
    """Read either kind of CSV: key -> ``[C]`` bool.

    Raises:
        ValueError: the file has a mistake; names the line.
    """
    names, (header, *rows) = Names(classes), read_rows(path) or [(1, [])]
    cells = header[1]
    if not cells or cells[0].strip().lower() not in PHOTO_COLUMNS:
        found = f"begins with {short_repr(cells[0])}" if cells else "is missing: the file is empty"
        raise ValueError(
            f"{path}: the header {found}; it must be 'photo' and a column for each of the "
            f"{len(classes)} classes ({', '.join(classes)}), or 'photo,tags'"
        )
    as_tags = len(cells) == 2 and cells[1].strip().lower() in TAG_COLUMNS
    found_rows = _of_tags(path, rows, names) if as_tags else _of_table(path, header, rows, names)
    labels: dict[str, np.ndarray] = {}
    for number, key, row in found_rows:
        if key in labels:
            raise ValueError(f"{path}: line {number} names {short_repr(key)} again; keep one line")
        labels[key] = row
    return labels


def line_of(path: Path, key: str) -> str:
    """Where a CSV names a photo, for messages: ``line 3 ``; nothing if it is another file."""
    if path.suffix.lower() not in (".csv", ".tsv") or not path.is_file():
        return ""
    return next((f"line {number} " for number, cells in read_rows(path) if cells[0] == key), "")


def _of_tags(path: Path, rows: list[Row], names: Names) -> Iterator[tuple[int, str, np.ndarray]]:
    for number, (key, *cells) in rows:
        row = np.zeros(len(names.classes), dtype=bool)
        # Tags apart by the sign that ends cells fill several cells; they are meant all the same.
        for tag in re.split(r"[|;,]", "|".join(cells)):
            place = names.place(tag)
            if tag.strip() and place is None:
                raise ValueError(f"{path}: line {number} has the tag {names.unknown(tag)}")
            if place is not None:
                row[place] = True
        yield number, key, row


def _of_table(
    path: Path, header: Row, rows: list[Row], names: Names
) -> Iterator[tuple[int, str, np.ndarray]]:
    columns = _columns(path, header[1], names)
    width = len(header[1])
    for number, cells in rows:
        # Excel may end a row before its empty cells; but who writes zeros writes all of them.
        short = len(cells) < width and "0" in cells[1:]
        if len(cells) > width or short:
            raise ValueError(
                f"{path}: line {number} has {len(cells)} columns, the header {width}; write a cell "
                f"for each of the {len(names.classes)} classes"
            )
        full = cells + [""] * (width - len(cells))
        answers = [full[column].strip().lower() for column in columns]
        odd = next((answer for answer in answers if answer not in _YES | _NO), None)
        if odd is not None:
            raise ValueError(
                f"{path}: line {number} holds {short_repr(odd)}; write 1 or x where the class is "
                "in the "
                "photo, and 0 or nothing where it is not"
            )
        yield number, full[0], np.array([answer in _YES for answer in answers])


def _columns(path: Path, header: list[str], names: Names) -> list[int]:
    """The column of each class.

    Raises:
        ValueError: a column is of no class, or a class has none or two.
    """
    places = [names.place(cell) for cell in header[1:]]
    wrong = ""
    if None in places:
        wrong = f"has the column {names.unknown(header[1 + places.index(None)])}"
    for place, name in enumerate(names.classes):
        if not wrong and places.count(place) != 1:
            wrong = f"has {'two columns' if place in places else 'no column'} of {short_repr(name)}"
    if wrong:
        raise ValueError(
            f"{path}: the header {wrong}; it must be 'photo' and a column for each of the "
            f"{len(names.classes)} classes ({', '.join(names.classes)}), or 'photo,tags'"
        )
    return [1 + places.index(place) for place in range(len(names.classes))]


def read_rows(path: Path) -> list[Row]:
    """Read the rows of a CSV that hold anything, without the empty cells at their ends.

    What separates cells is read off the first line: Excel writes semicolons where the comma is the
    decimal sign, and fills up rows with empty cells. A first line ``sep=;`` names it and is no row.

    Raises:
        ValueError: the file is missing, no text, or no CSV; says what to do.
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
            "'CSV "
            "UTF-8'"
        ) from None
    except (OSError, csv.Error) as error:
        raise ValueError(
            f"{path}: not readable as CSV ({error_text(error)}); check the file"
        ) from None
    return [(number, cells) for number, cells in rows if cells]


def _delimiter(line: str) -> str:
    """What ends the first cell of a line; a comma if nothing does."""
    if line.lstrip("\ufeff").startswith('"'):
        line = line.lstrip("\ufeff")[1:].partition('"')[2]
    found = [(line.index(sign), sign) for sign in DELIMITERS if sign in line]
    return min(found)[1] if found else ","


def _trimmed(cells: list[str]) -> list[str]:
    while cells and not cells[-1]:
        cells = cells[:-1]
    return cells
