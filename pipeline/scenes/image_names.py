"""Names of photos as users write them, matched to the keys of scenes."""

import difflib
import unicodedata
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.scenes.image_io import PHOTO_ENDINGS
from pipeline.system.text import short_repr

# What folders of the splits are called, in any capitals; the first name is that of keys.
SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing"),
}
_SPLIT_OF = {name: split for split, names in SPLITS.items() for name in names}


def plain(name: str) -> str:
    """A name of a photo as names are compared, whatever system wrote it.

    macOS writes letters with accents as two characters, Windows writes backslashes.
    """
    return unicodedata.normalize("NFC", name.strip()).replace("\\", "/")


def without_ending(name: str) -> str:
    """A name without the ending of a photo's file."""
    return name[: -len(Path(name).suffix)] if Path(name).suffix.lower() in PHOTO_ENDINGS else name


def _tails(key: str) -> Iterator[str]:
    """A path and its ends: ``a/b/c``, ``b/c``, ``c``; also with the key's name of a split."""
    parts = key.split("/")
    for start, part in enumerate(parts):
        yield "/".join(parts[start:])
        if part.casefold() in _SPLIT_OF and start + 1 < len(parts):
            yield "/".join([_SPLIT_OF[part.casefold()], *parts[start + 1 :]])


class PhotoNames:
    """Finds the scene that a written name means: its key, its path or the last parts of it, with or
    without the file's ending. The longest match decides.

    Args:
        keys: keys of the scenes.
    """

    def __init__(self, keys: Sequence[str]) -> None:
        self.keys = dict.fromkeys(keys)
        self._ends: dict[str, str] = {}  # end of a path -> the first key that ends so
        self._others: dict[str, str] = {}  # -> the second one
        for key in keys:
            for tail in _tails(plain(key)):
                if self._ends.setdefault(tail, key) != key:
                    self._others.setdefault(tail, key)

    def find(self, written: str) -> list[str]:
        """The key that a name means; two if it is ambiguous; none if it is unknown."""
        if written in self.keys:
            return [written]
        name = plain(written)
        for short in (without_ending(name).strip(), name):
            for tail in _tails(short):
                if tail in self._ends:
                    both = self._ends[tail], self._others.get(tail)
                    return [key for key in both if key is not None]
        return []

    def hint(self, written: str) -> str:
        """What an unknown name may have meant."""
        name = without_ending(plain(written))
        near = difflib.get_close_matches(name, list(self._ends), n=1, cutoff=0.8)
        if near:
            return f"is {short_repr(near[0])} meant?"
        return f"they are named like {short_repr(next(iter(self.keys), ''))}"
