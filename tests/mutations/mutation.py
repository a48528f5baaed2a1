"""A mistake that one could make, and the tests that must notice it."""

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Mutation:
    """One broken line.

    Attributes:
        name: what the mistake is.
        file: in ``pipeline``.
        old: text that stands there once.
        new: what takes its place.
        tests: test files, without ``test_`` and ``.py``, of which one must fail.
    """

    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    @property
    def path(self) -> Path:
        """The file, relative to the root."""
        return Path("pipeline") / self.file

    def apply(self, root: Path) -> None:
        """Break the line in a copy of the tree."""
        content = (root / self.path).read_text("utf-8")
        if content.count(self.old) != 1:
            raise ValueError(
                f"{self.path}: {self.old!r} stands there {content.count(self.old)} times instead "
                "of once; write it anew in tests/mutations"
            )
        (root / self.path).write_text(content.replace(self.old, self.new), "utf-8")
