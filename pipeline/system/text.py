"""What others wrote, or their libraries say, as short text in one line: for error messages."""

import re
import reprlib
from collections.abc import Sequence
from datetime import date

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxtuple = 3, 10, 30, 30
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80
# Of POSIX and Windows, its last part the second group.
_ABSOLUTE = re.compile(r"^(local-dir:)?(?:[A-Za-z]:)?[/\\].*?([^/\\]*)[/\\]*$", re.DOTALL)


def short_repr(value: object) -> str:
    """A value as a short text in one line, its simple kinds as YAML writes them.

    Lists within lists are cut before they are written: a YAML file of a kilobyte can name one list
    over and over, so that it holds a billion items.
    """
    try:
        text = str(value) if isinstance(value, date) else _SHORT.repr(value)
    except ValueError:  # Python writes no number of more than 4300 digits
        return "a number of thousands of digits"
    text = {"None": "null", "True": "true", "False": "false"}.get(text, text)
    return text if len(text) <= 60 else f"{text[:57]}..."


def error_text(error: Exception) -> str:
    """What a library's error says, short and without line breaks."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def table_cell(text: str) -> str:
    """A text as a cell of a Markdown table, where ``|`` and line breaks would end it."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


def without_folders(name: str) -> str:
    """A text whose absolute path, if it is one, is cut to ``.../name``; ``local-dir:`` stays.

    For what is mailed or published: where a user keeps files is nobody's business.
    """
    return _ABSOLUTE.sub(r"\1.../\2", name)


def rebuild_hint(stage: str) -> str:
    """How to make a stage's damaged output again.

    Plain `dvc repro` compares times and sizes of files first: a flipped bit changes neither.
    """
    return f"run `dvc repro --force --single-item {stage}` to make it again"


def first_few(items: Sequence[object], count: int = 5) -> str:
    """The first of some items, separated by commas."""
    return ", ".join(map(str, items[:count])) + (", ..." if len(items) > count else "")
