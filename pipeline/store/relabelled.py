"""Labels of the stage `relabel` in the place of CLIP's global level."""

from collections.abc import Set
from pathlib import Path

import numpy as np

from pipeline.store.plan import Grid
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.files import LIST, NOTHING


class StoreView:
    """A store as a source of labels; subclasses change its global level.

    Args:
        store: CLIP's logits.
    """

    def __init__(self, store: PseudoMaskStore) -> None:
        self.store, self.classes = store, store.classes

    @property
    def global_level(self) -> str:
        """The level that global views use."""
        return self.store.global_level

    @property
    def local_levels(self) -> list[str]:
        """The levels that local views use."""
        return self.store.local_levels

    def grid_size(self, key: str, level: str) -> Grid:
        """``(h, w)`` of a photo's logits at a level."""
        return self.store.grid_size(key, level)

    def read(self, key: str, level: str) -> np.ndarray:
        """Logits of a photo, ``[C, h, w]`` float32, a grid that spans it."""
        return self.store.read(key, level)

    def read_padded(self, key: str, level: str) -> np.ndarray:
        """``[C, h, w]`` float16, the grid in the top left corner."""
        return self.store.read_padded(key, level)


class Relabelled(StoreView):
    """A store's logits, its global level replaced by new labels.

    Args:
        new: the relabelled images; it has the global level alone.
        store: CLIP's logits.
    """

    def __init__(self, new: PseudoMaskStore, store: PseudoMaskStore) -> None:
        super().__init__(store)
        self.new = new

    def grid_size(self, key: str, level: str) -> Grid:
        """``(h, w)`` of a photo's logits at a level."""
        return self._of(level).grid_size(key, level)

    def read(self, key: str, level: str) -> np.ndarray:
        """Logits of a photo, ``[C, h, w]`` float32, a grid that spans it."""
        return self._of(level).read(key, level)

    def read_padded(self, key: str, level: str) -> np.ndarray:
        """``[C, h, w]`` float16, the grid in the top left corner."""
        return self._of(level).read_padded(key, level)

    def _of(self, level: str) -> PseudoMaskStore:
        return self.new if level == self.global_level else self.store


def has_labels(path: Path) -> bool:
    """Whether stage `relabel` wrote labels; without rounds the folder has none."""
    return path.is_dir() and any(entry.name not in (LIST, NOTHING) for entry in path.iterdir())


def check_relabelled(new: PseudoMaskStore, store: PseudoMaskStore, keys: Set[str]) -> None:
    """Refuse new labels of other classes or images.

    Args:
        new: the output of stage `relabel`.
        store: CLIP's logits.
        keys: the training images.

    Raises:
        ValueError: they do not fit.
    """
    digests = dict(zip(store.keys, store.attributes["digests"], strict=True))
    known = dict(zip(new.keys, new.attributes["digests"], strict=True))
    same = all(known.get(key) == digests[key] for key in keys)
    if not same or new.classes != store.classes or new.levels != [store.global_level]:
        raise ValueError(
            f"{new.path} was made from other images, classes or levels than {store.path}; "
            "run `dvc repro relabel`"
        )
