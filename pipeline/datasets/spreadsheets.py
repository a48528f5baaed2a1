"""CSV as spreadsheets save it: commas, semicolons or tabs, with or without a byte order mark."""

import csv
import re
from pathlib import Path

from pipeline.system.text import error_text

Row = tuple[int, list[str]]  # number of the line, cells
DELIMITERS = ",;\t"


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
