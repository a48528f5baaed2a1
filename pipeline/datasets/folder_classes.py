"""The list of a person's classes: names, and if wanted the words for CLIP and colours."""

import colorsys
import re
from pathlib import Path

from pipeline.datasets.spreadsheets import Row, read_rows
from pipeline.scenes.classes import LABEL_SPACES, ClassInfo, LabelSpace
from pipeline.system.text import short_repr

COLUMNS = ("class", "words", "colour")
_KNOWN = {info.name: info.colour for info in LABEL_SPACES["cityscapes"].classes}


def _colour(text: str, name: str, place: int) -> tuple[int, int, int]:
    """A colour as written; else that of Cityscapes for its classes; else one of its own."""
    if text:
        red, green, blue = bytes.fromhex(text.removeprefix("#"))
        return red, green, blue
    golden = place * 0.618034 % 1.0  # steps of the golden ratio never come close to each other soon
    shade = colorsys.hsv_to_rgb(golden, 0.55 + 0.4 * (place % 2), 0.95 - 0.3 * (place % 3) / 2)
    drawn = tuple(round(255 * part) for part in shade)
    return _KNOWN.get(name, (drawn[0], drawn[1], drawn[2]))


def read_classes(path: Path) -> LabelSpace:
    """Read a list of classes; their order is that of the indices in masks.

    Args:
        path: CSV with a header of ``class`` and, if wanted, ``words`` and ``colour``; or ``.txt``,
            a name a line.

    Raises:
        ValueError: the file has a mistake; names the line.
    """
    if path.suffix.lower() == ".txt":
        header, rows = ["class"], _lines(path)
    else:
        header, rows = _header(path, read_rows(path))
    infos: dict[str, ClassInfo] = {}
    for number, row in rows:
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        name, colour = cells["class"], cells.get("colour", "")
        if fault := _fault(row, header, name, colour, infos):
            raise ValueError(f"{path}: line {number} {fault}")
        words = tuple(word.strip() for word in cells.get("words", "").split("|") if word.strip())
        infos[name] = ClassInfo(name, _colour(colour, name, len(infos)), words or (name,))
    if not 2 <= len(infos) <= 255:
        raise ValueError(f"{path}: must list 2 to 255 classes, got {len(infos)}")
    return LabelSpace("folder", tuple(infos.values()))


def _lines(path: Path) -> list[Row]:
    """The lines of a text that hold anything."""
    try:
        lines = path.read_text("utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not readable as text ({error}); save it as UTF-8") from None
    return [(number, [line]) for number, line in enumerate(lines, start=1) if line.strip()]


def _header(path: Path, rows: list[Row]) -> tuple[list[str], list[Row]]:
    """The columns of a list of classes, and its other rows."""
    header = [column.strip().lower() for column in rows[0][1]] if rows else []
    if header[:1] != ["class"] or len(set(header)) < len(header) or set(header) - set(COLUMNS):
        raise ValueError(
            f"{path}: the header must be 'class' and, if wanted, 'words' and 'colour', got "
            f"{short_repr(', '.join(header)) if header else 'nothing'}; names alone, a line each, "
            "go "
            "into classes.txt"
        )
    return header, rows[1:]


def _fault(
    row: list[str], header: list[str], name: str, colour: str, before: dict[str, ClassInfo]
) -> str:
    """What is wrong with a line, or nothing."""
    if len(row) > len(header):
        return f"has {len(row)} columns, the header {len(header)}; put '|' between words"
    if not name or name == "key":  # the first column of a CSV of labels
        return f"must name a class, got {short_repr(name)}"
    if name in before:
        return f"names {short_repr(name)} again; keep one of the lines"
    if colour and not re.fullmatch("#[0-9a-fA-F]{6}", colour):
        return f"must have a colour such as #804080, got {short_repr(colour)}"
    return ""
