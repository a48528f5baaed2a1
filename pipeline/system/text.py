"""Error sentences for users: values and library errors in one line, several errors in one."""

import dis
import re
import reprlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from types import CodeType

_SHORT = reprlib.Repr()
_SHORT.maxlevel, _SHORT.maxdict, _SHORT.maxlist, _SHORT.maxtuple = 3, 10, 30, 30
_SHORT.maxstring = _SHORT.maxlong = _SHORT.maxother = 80
# A path of POSIX or Windows; the second group is its last part.
_ABSOLUTE = re.compile(r"^(local-dir:)?(?:[A-Za-z]:)?[/\\].*?([^/\\]*)[/\\]*$", re.DOTALL)
_ROOT = Path(__file__).resolve().parents[2]
_PACKAGES = tuple(str(_ROOT / name) for name in ("pipeline", "stages", "bench", "demo"))
_RAISE = dis.opmap["RAISE_VARARGS"]
_MAX_LISTED = 20  # errors in one message


def short_repr(value: object) -> str:
    """A value as a short text in one line; null, true and false as in YAML.

    Nested lists are cut first: YAML aliases can expand a short file to a billion items.
    """
    try:
        text = str(value) if isinstance(value, date) else _SHORT.repr(value)
    except ValueError:  # Python prints at most 4300 digits of a number
        return "a number with thousands of digits"
    text = {"None": "null", "True": "true", "False": "false"}.get(text, text)
    return text if len(text) <= 60 else f"{text[:57]}..."


def error_text(error: Exception) -> str:
    """The text of a library's error, short and without line breaks."""
    return " ".join(str(error).split())[:300] or type(error).__name__


def table_cell(text: str) -> str:
    """A text as a cell of a Markdown table, where ``|`` and line breaks would end it."""
    return " ".join(text.split()).replace("\\", "\\\\").replace("|", "\\|")


def without_folders(name: str) -> str:
    """Shorten an absolute path to ``.../name`` for texts that may be published.

    A prefix ``local-dir:`` stays.
    """
    return _ABSOLUTE.sub(r"\1.../\2", name)


def rebuild_hint(stage: str) -> str:
    """How to make a damaged output of a stage again.

    Plain `dvc repro` misses flipped bits, because it compares times and sizes of files first.
    """
    return f"run `dvc repro --force --single-item {stage}` to make it again"


class Faults:
    """Collects errors about files to report all at once; ``what``: the files, in the plural."""

    def __init__(self, what: str) -> None:
        self.what, self._found = what, list[str]()

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Continue after a ValueError."""
        try:
            yield
        except ValueError as error:
            self._found.append(str(error))

    def check(self) -> None:
        """Raise one ValueError for all: a single one unchanged, else their number and texts."""
        if len(self._found) > 1:
            more = len(self._found) - _MAX_LISTED
            rest = f" | and {more} more" if more > 0 else ""
            listed = " | ".join(self._found[:_MAX_LISTED])
            raise ValueError(f"{len(self._found)} {self.what} cannot be used: {listed}{rest}")
        if self._found:
            raise ValueError(self._found[0])


def sentence_of(error: ValueError | OSError, home: CodeType) -> str | None:
    """An error as one line for the user, or None if its text was not written for users.

    Only texts of ``raise`` statements of this project are written for users. A ``ValueError`` of a
    library or of Python is about arguments that a user does not know.

    Args:
        error: as it was caught.
        home: the code of the command; a ``raise`` in its file counts as ours.
    """
    text = _from_worker(str(error)) or _raised_here(error, home)
    if text is None and isinstance(error, OSError) and error.errno is not None:
        text = str(error)  # the system's own text: no space, no permission, no such file
    return None if text is None else " ".join(text.split())


def _is_ours(file: str, home: str = "") -> bool:
    return file == home or str(Path(file).parent).startswith(_PACKAGES)


def _raised_here(error: Exception, home: CodeType) -> str | None:
    """The text of an error if a ``raise`` of ours made it, not C code that our line called."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None or not _is_ours(last.tb_frame.f_code.co_filename, home.co_filename):
        return None
    return str(error) if last.tb_frame.f_code.co_code[last.tb_lasti] == _RAISE else None


def _from_worker(text: str) -> str | None:
    """The same for a data loader's worker, whose error torch passes on as a traceback's text."""
    if not text.startswith("Caught "):
        return None
    file, _, lines = text.rpartition('\n  File "')[2].partition('"')
    _, *code, last = lines.rstrip().split("\n") if "\n" in lines else ["", ""]
    raised = bool(code) and code[0].strip().startswith("raise ")
    return last.partition(": ")[2] if raised and _is_ours(file) else None


def first_few(items: Sequence[object], count: int = 5) -> str:
    """The first of some items, separated by commas."""
    return ", ".join(map(str, items[:count])) + (", ..." if len(items) > count else "")
