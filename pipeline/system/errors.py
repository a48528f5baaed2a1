"""Errors as sentences for the user, and several of them in one message."""

import dis
from collections.abc import Iterator
from contextlib import contextmanager
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


NAMED = 20  # in one message


class Faults:
    """Collects what is wrong with files, so that all are named at once.

    Args:
        what: the files, in the plural.
    """

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
        """Raise one error for all.

        Raises:
            ValueError: as it was if it is the only one; else their number and the first of them.
        """
        if len(self._found) > 1:
            more = len(self._found) - NAMED
            rest = f" | and {more} more" if more > 0 else ""
            listed = " | ".join(self._found[:NAMED])
            raise ValueError(f"{len(self._found)} {self.what} cannot be used: {listed}{rest}")
        if self._found:
            raise ValueError(self._found[0])
