"""The cache of CLIP's patch logits in Zarr: whole-shard writes and fingerprints.

Layout: one group a level, each with the array ``logits [N, C, h, w]`` float16, one chunk a photo,
many photos a shard; the grid of a photo smaller than the largest stands in the top left corner.
Logits are those before any image-level label is applied, so the cache serves every label set. The
root attributes tell what made the content (``recipe``) and, photo by photo, of which bytes
(``digests``).
"""

import json
import math
import shutil
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from pipeline.runtime import file_digest, fingerprint, write_json
from pipeline.shards import COMPRESSOR, Shards
from pipeline.store_attributes import check_attributes
from pipeline.wording import one_line

FORMAT = 1
SHARD_BYTES = 64 * 2**20  # few large files: DVC and object stores are slow with many small ones
SHARD_PHOTOS = 50  # at most: a killed run loses so many, and photos that come last rewrite so many
FUSED = "fused"  # the level made of all others
Grid = tuple[int, int]


@dataclass(frozen=True)
class Photo:
    """What identifies a stored photo: its key, the digest of its file and its size in pixels."""

    key: str
    digest: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Plan:
    """All that determines the content of a store.

    Attributes:
        recipe: what CLIP is, is asked and does; equal recipes and photos give equal logits. Its
            entry ``levels``, if any, tells what each level does.
        classes: class names, by index.
        photos: what is stored, in order.
        grids: for each level the ``(h, w)`` of each photo.
    """

    recipe: dict[str, Any]
    classes: list[str]
    photos: list[Photo]
    grids: dict[str, list[Grid]]

    @cached_property
    def _largest(self) -> dict[str, Grid]:
        """Height and width that hold every photo's grid, by level; asked once a shard or more."""
        return {
            level: (max(rows for rows, _ in grids), max(columns for _, columns in grids))
            for level, grids in self.grids.items()
        }

    def shape(self, level: str) -> tuple[int, int, int, int]:
        """Shape of a level's array: the largest grid holds every photo."""
        return len(self.photos), len(self.classes), *self._largest[level]

    def shard_size(self, level: str) -> int:
        """Photos a shard; a function of the grid, so that new photos leave full shards alone."""
        photo_bytes = 2 * math.prod(self.shape(level)[1:])
        return max(1, min(SHARD_PHOTOS, SHARD_BYTES // photo_bytes))

    def num_shards(self, level: str) -> int:
        """Number of shards of a level."""
        return -(-len(self.photos) // self.shard_size(level))

    def rows(self, level: str, shard: int) -> range:
        """The rows of a shard."""
        size = self.shard_size(level)
        return range(shard * size, min((shard + 1) * size, len(self.photos)))

    def attributes(self) -> dict[str, Any]:
        """The root attributes of the store."""
        return {
            "format": FORMAT,
            "recipe": self.recipe,
            "classes": self.classes,
            "keys": [photo.key for photo in self.photos],
            "digests": [photo.digest for photo in self.photos],
            "sizes": [list(photo.size) for photo in self.photos],
            "grids": {level: [list(grid) for grid in grids] for level, grids in self.grids.items()},
        }

    def fingerprint(self) -> str:
        """Names the content: equal fingerprints, equal bytes (on one kind of machine)."""
        sizes = {level: self.shard_size(level) for level in self.grids}
        return fingerprint(self.attributes() | {"shards": sizes})


def _shard_intact(store: Path, level: str, shard: int) -> bool:
    """Whether a shard is there and has the bytes that were written."""
    record, file = _record(store, level, shard), _shard_file(store, level, shard)
    if not (record.is_file() and file.is_file()):
        return False
    return record.read_bytes() == f"{json.dumps(file_digest(file))}\n".encode()


def _record(store: Path, level: str, shard: int) -> Path:
    return store / "finished" / f"{level}-{shard}.json"


def _shard_file(store: Path, level: str, shard: int) -> Path:
    return store / level / "logits" / "c" / f"{shard}/0/0/0"


class PseudoMaskStore:
    """Read access to a finished store; get one from `open`.

    Attributes:
        keys: the photos.
        classes: class names, by index.
        levels: the view levels, the global one first; a fused one comes last.
        text: CLIP's embedding of each class, ``[C, D]`` float32.
        shards: the files of each level.
    """

    def __init__(self, path: Path, root: zarr.Group) -> None:
        self.path = path
        attributes: dict[str, Any] = root.attrs.asdict()
        self.attributes = attributes
        self.keys: list[str] = attributes["keys"]
        self.classes: list[str] = attributes["classes"]
        self.levels: list[str] = list(attributes["grids"])
        self.sizes: dict[str, tuple[int, int]] = {
            key: (size[0], size[1])
            for key, size in zip(self.keys, attributes["sizes"], strict=True)
        }
        self.text: np.ndarray = np.asarray(_array(root, "text"))
        self._row = {key: row for row, key in enumerate(self.keys)}
        arrays = {level: _array(root, f"{level}/logits") for level in self.levels}
        for array in (_array(root, "text"), *arrays.values()):
            if array.nchunks_initialized < array.nchunks:  # Zarr would read zeros
                raise ValueError(f"'{array.path}' lacks files")
        if any(array.shape[0] != len(self.keys) for array in arrays.values()):
            raise ValueError("its arrays are of other photos")
        self.shards = _shards(arrays, path)
        self._intact: dict[tuple[str, int], bool] = {}

    @classmethod
    def open(cls, path: Path | str) -> "PseudoMaskStore":
        """Open a finished store.

        Raises:
            ValueError: there is no store at ``path``, or it is damaged or of another format.
        """
        path = Path(path)
        repair = "run `dvc repro pseudo` to make it"
        if not (path / "zarr.json").is_file():
            raise ValueError(f"{path}: no pseudo-mask store here; {repair}")
        try:
            root = zarr.open_group(LocalStore(path, read_only=True), mode="r", zarr_format=3)
            if root.attrs.get("format") != FORMAT:
                raise ValueError("another format")
            check_attributes(root.attrs.asdict())
            return cls(path, root)
        except Exception as error:  # damaged files make Zarr and its codecs raise many kinds
            raise ValueError(
                f"{path}: not a whole pseudo-mask store ({one_line(error)}); {repair}"
            ) from None

    @property
    def near(self) -> str:
        """The level of whole crops: the fused one if there is one, else the global view."""
        return FUSED if FUSED in self.levels else self.levels[0]

    @property
    def far(self) -> list[str]:
        """The levels of local windows."""
        return [level for level in self.levels[1:] if level != FUSED]

    def grid_size(self, key: str, level: str) -> Grid:
        """``(h, w)`` of a photo's logits at a level."""
        rows, columns = self.attributes["grids"][level][self._row[key]]
        return rows, columns

    def read(self, key: str, level: str) -> np.ndarray:
        """Patch logits of a photo, ``[C, h, w]`` float32, spanning it whole."""
        rows, columns = self.grid_size(key, level)
        return self.read_padded(key, level)[:, :rows, :columns].astype(np.float32)

    def read_padded(self, key: str, level: str) -> np.ndarray:
        """As stored, ``[C, h, w]`` float16 of the level's largest grid; unused cells are 0.

        Raises:
            ValueError: the file is damaged.
        """
        row = self._row[key]
        try:
            return self.shards[level].read(row)
        except (ValueError, RuntimeError, OSError) as error:  # checksum, decompression, disk
            raise ValueError(
                f"{self.path}: the {level} logits of '{key}' are damaged ({error}); run "
                "`dvc repro pseudo` to make them again"
            ) from None

    def intact(self, key: str, level: str) -> bool:
        """Whether the shard that holds a photo's logits has the bytes that were written."""
        shard = self._row[key] // self.shards[level].rows
        if (level, shard) not in self._intact:
            self._intact[level, shard] = _shard_intact(self.path, level, shard)
        return self._intact[level, shard]


def _recipe_of(recipe: dict[str, Any], level: str) -> dict[str, Any]:
    """What determines the logits of one level; the others matter to the fused one alone."""
    if level == FUSED:
        return recipe
    return {**recipe, "levels": recipe.get("levels", {}).get(level), "fused": None}


def _array(root: zarr.Group, name: str) -> "zarr.Array[Any]":
    array = root[name]
    if not isinstance(array, zarr.Array):
        raise ValueError(f"'{name}' is no array")
    return array


def _shards(arrays: dict[str, "zarr.Array[Any]"], path: Path) -> dict[str, Shards]:
    return {level: Shards.of(array, path / level / "logits") for level, array in arrays.items()}


def _create(path: Path, plan: Plan, text: np.ndarray) -> dict[str, "zarr.Array[Any]"]:
    """Lay out an empty store; the same plan gives the same files."""
    root = zarr.create_group(LocalStore(path))
    root.create_array("text", data=text)
    arrays = {}
    for level in plan.grids:
        shape = plan.shape(level)
        arrays[level] = root.create_array(
            f"{level}/logits",
            shape=shape,
            dtype="float16",
            chunks=(1, *shape[1:]),
            shards=(plan.shard_size(level), *shape[1:]),
            compressors=COMPRESSOR,
            fill_value=0,
        )
    content = json.loads((path / "zarr.json").read_text("utf-8"))
    with (path / "zarr.json").open("w", encoding="utf-8") as handle:  # Zarr copies all of it twice
        json.dump(content | {"attributes": plan.attributes()}, handle, indent=2)
    return arrays


class StoreWriter:
    """Writes a store shard by shard into a draft folder; what a stopped run finished is kept.

    Args:
        draft: scratch folder of this plan alone (name it by ``plan.fingerprint()``).
        plan: what the store must hold.
        text: CLIP's embedding of each class, ``[C, D]`` float32.
        previous: an earlier store whose logits may be reused, or None.
    """

    def __init__(
        self, draft: Path, plan: Plan, *, text: np.ndarray, previous: PseudoMaskStore | None
    ) -> None:
        self.plan, self.path = plan, draft / "masks.zarr"
        ledger = self.path / "finished"
        if not ledger.is_dir():
            shutil.rmtree(draft, ignore_errors=True)
            self._arrays = _create(self.path, plan, text)
            ledger.mkdir()
        else:
            root = zarr.open_group(LocalStore(self.path), mode="r+")
            self._arrays = {level: _array(root, f"{level}/logits") for level in plan.grids}
        self._shards = _shards(self._arrays, self.path)
        self._previous, self._known = previous, dict[str, str]()
        if previous is not None:
            self._known = dict(zip(previous.attributes["digests"], previous.keys, strict=True))

    def pending(self, levels: Collection[str]) -> list[tuple[str, int]]:
        """Shards of some levels that are not finished: no record, or not the recorded bytes."""
        return [
            (level, shard)
            for level in levels
            for shard in range(self.plan.num_shards(level))
            if not _shard_intact(self.path, level, shard)
        ]

    def missing(self, level: str, shard: int) -> list[int]:
        """Rows of a shard that CLIP has to look at; the others stand in the previous store."""
        photos = self.plan.photos
        rows = self.plan.rows(level, shard)
        return [row for row in rows if not self._reusable(photos[row], level, row)]

    def _reusable(self, photo: Photo, level: str, row: int) -> bool:
        if self._previous is None or photo.digest not in self._known:
            return False
        recipe = self._previous.attributes["recipe"]
        if _recipe_of(recipe, level) != _recipe_of(self.plan.recipe, level):
            return False
        key = self._known[photo.digest]
        fits = self._previous.grid_size(key, level) == self.plan.grids[level][row]
        return fits and self._previous.intact(key, level)

    def _same_shard(self, level: str, shard: int) -> Path | None:
        """The previous store's file of a shard, if it holds the same photos in the same places."""
        if self._previous is None:
            return None
        there, size = self._previous.shards[level], self.plan.shard_size(level)
        if (there.rows, there.shape) != (size, self.plan.shape(level)[1:]):
            return None
        begin = shard * size
        before = self._previous.attributes["digests"][begin : begin + size]
        if before != [self.plan.photos[row].digest for row in self.plan.rows(level, shard)]:
            return None
        intact = self._previous.intact(self._previous.keys[begin], level)
        return there.file(shard) if intact else None

    def read(self, row: int, level: str) -> np.ndarray:
        """Logits of a finished shard, ``[C, h, w]`` float32."""
        rows, columns = self.plan.grids[level][row]
        return self._shards[level].read(row)[:, :rows, :columns].astype(np.float32)

    def write_shard(
        self, level: str, shard: int, compute: Callable[[int], np.ndarray]
    ) -> Iterator[int]:
        """Fill a shard and write it in one piece.

        Args:
            level: name of the level.
            shard: index of the shard.
            compute: gives the logits of a row, ``[C, h, w]``, where they cannot be reused.

        Yields:
            each row as it is ready (for progress); the shard is on disk when the iterator ends.
        """
        file = _shard_file(self.path, level, shard)
        file.unlink(missing_ok=True)  # Zarr would read what a killed run left, and fail on it
        rows, missing = self.plan.rows(level, shard), set(self.missing(level, shard))
        if not missing and (whole := self._same_shard(level, shard)):
            file.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(whole, file)
            yield from rows
        else:
            block = np.zeros((len(rows), *self.plan.shape(level)[1:]), dtype=np.float16)
            for place, row in enumerate(rows):
                if row in missing:
                    logits = compute(row)
                else:
                    assert self._previous is not None
                    logits = self._previous.read(self._known[self.plan.photos[row].digest], level)
                block[place, :, : logits.shape[1], : logits.shape[2]] = logits
                yield row
            self._arrays[level][rows.start : rows.stop] = block
        write_json(_record(self.path, level, shard), file_digest(file))
