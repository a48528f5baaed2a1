"""Whose error it is: a sentence for the user, or a traceback for whoever mends the code.

Only what a ``raise`` statement of this project says was written for users. A ``ValueError`` that a
library raises, or Python itself, is about the library's arguments and names nothing that a user
knows: it keeps its traceback.
"""

import dis
from pathlib import Path
from types import CodeType

PROJECT = Path(__file__).resolve().parents[2]
PACKAGES = tuple(str(PROJECT / name) for name in ("pipeline", "stages", "bench", "demo"))
_RAISE = dis.opmap["RAISE_VARARGS"]


def sentence_of(error: ValueError | OSError, home: CodeType) -> str | None:
    """An error as one line for the user, or None where it was not written for one.

    Args:
        error: as it was caught.
        home: the code of the command; a ``raise`` in its file counts as ours wherever it lies.
    """
    said = _from_worker(str(error)) or _raised_here(error, home)
    if said is None and isinstance(error, OSError) and error.errno is not None:
        said = str(error)  # the system's own words: no space, no permission, no such file
    return None if said is None else " ".join(said.split())


def _is_ours(file: str, home: str = "") -> bool:
    return file == home or str(Path(file).parent).startswith(PACKAGES)


def _raised_here(error: Exception, home: CodeType) -> str | None:
    """The text of an error that a ``raise`` of ours made; not what C code raised in our line."""
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None or not _is_ours(last.tb_frame.f_code.co_filename, home.co_filename):
        return None
    return str(error) if last.tb_frame.f_code.co_code[last.tb_lasti] == _RAISE else None


def _from_worker(text: str) -> str | None:
    """The same of an error in a loader's process, which torch passes on as the text of its
    traceback."""
    if not text.startswith("Caught "):
        return None
    file, _, lines = text.rpartition('\n  File "')[2].partition('"')
    _, *code, last = lines.rstrip().split("\n") if "\n" in lines else ["", ""]
    raised = bool(code) and code[0].strip().startswith("raise ")
    return last.partition(": ")[2] if raised and _is_ours(file) else None
