"""What is wrong with several files, in one message."""

from collections.abc import Iterator
from contextlib import contextmanager

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
