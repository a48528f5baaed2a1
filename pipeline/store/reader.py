"""The cache of CLIP's patch logits in Zarr: whole-shard writes and fingerprints.

Layout: one group a level, each with the array ``logits [N, C, h, w]`` float16, one chunk a photo,
many photos a shard; the grid of a photo smaller than the largest stands in the top left corner.
Logits are those before any image-level label is applied, so the cache serves every label set. The
root attributes tell what made the content (``recipe``) and, photo by photo, of which bytes
(``digests``). The folder ``finished`` holds the SHA-256 of every file: of a shard when it is
written, of all others when the store is laid out; and probe logits, see `pipeline.store.probe`.
"""

import json
import math
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.storage import LocalStore

from pipeline.store.attributes import check_attributes
from pipeline.store.shards import Shards
from pipeline.system.files import file_digest, fingerprint
from pipeline.system.text import error_text, rebuild_hint

FORMAT = 2
SHARD_BYTES = 64 * 2**20  # few large files: DVC and object stores are slow with many small ones
SHARD_PHOTOS = 50  # at most: a killed run loses so many, and photos that come last rewrite so many
FUSED = "fused"  # the level made of all others
FINISHED = "finished"  # folder of digests
LAYOUT = f"{FINISHED}/layout.json"  # those of all files but shards
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

    def num_bytes(self) -> int:
        """Bytes of all logits; compressed they take less, and what pads them takes next to none."""
        cells = sum(rows * columns for grids in self.grids.values() for rows, columns in grids)
        return 2 * len(self.classes) * cells

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


def shard_intact(store: Path, level: str, shard: int) -> bool:
    """Whether a shard is there and has the bytes that were written."""
    record, file = shard_record(store, level, shard), shard_file(store, level, shard)
    if not (record.is_file() and file.is_file()):
        return False
    return record.read_bytes() == f"{json.dumps(file_digest(file))}\n".encode()


def shard_record(store: Path, level: str, shard: int) -> Path:
    """File that holds the digest of a finished shard."""
    return store / FINISHED / f"{level}-{shard}.json"


def shard_file(store: Path, level: str, shard: int) -> Path:
    """File of a shard."""
    return store / level / "logits" / "c" / f"{shard}/0/0/0"


def damaged_layout(store: Path) -> str:
    """Name of a file that is not as it was laid out, metadata or text; or nothing.

    Raises:
        OSError, ValueError: there is no record of the layout.
    """
    digests: dict[str, str] = json.loads((store / LAYOUT).read_text("utf-8"))
    return next((name for name, digest in digests.items() if not _has(store / name, digest)), "")


def _has(file: Path, digest: str) -> bool:
    return file.is_file() and file_digest(file) == digest


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
        self.text: np.ndarray = np.asarray(array_of(root, "text"))
        self._row = {key: row for row, key in enumerate(self.keys)}
        arrays = {level: array_of(root, f"{level}/logits") for level in self.levels}
        for array in (array_of(root, "text"), *arrays.values()):
            if array.nchunks_initialized < array.nchunks:  # Zarr would read zeros
                raise ValueError(f"'{array.path}' lacks files")
        if any(array.shape[0] != len(self.keys) for array in arrays.values()):
            raise ValueError("its arrays are of other photos")
        self.shards = shards_of(arrays, path)
        self._intact: dict[tuple[str, int], bool] = {}

    @classmethod
    def open(cls, path: Path | str) -> "PseudoMaskStore":
        """Open a finished store.

        Raises:
            ValueError: there is no store at ``path``, or it is damaged or of another format.
        """
        path = Path(path)
        if not (path / "zarr.json").is_file():
            raise ValueError(
                f"{path}: no pseudo-mask store here; run `dvc repro pseudo` to make it"
            )
        try:
            root = zarr.open_group(LocalStore(path, read_only=True), mode="r", zarr_format=3)
            if root.attrs.get("format") != FORMAT:
                raise ValueError("another format")
            if damaged := damaged_layout(path):
                raise ValueError(f"'{damaged}' is not as it was written")
            check_attributes(root.attrs.asdict())
            return cls(path, root)
        except Exception as error:  # damaged files make Zarr and its codecs raise many kinds
            raise ValueError(
                f"{path}: not a whole pseudo-mask store ({error_text(error)}); "
                f"{rebuild_hint('pseudo')}"
            ) from None

    @property
    def global_level(self) -> str:
        """The level of whole crops: the fused one if there is one, else the global view."""
        return FUSED if FUSED in self.levels else self.levels[0]

    @property
    def local_levels(self) -> list[str]:
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
                f"{self.path}: the {level} logits of '{key}' are damaged ({error}); "
                f"{rebuild_hint('pseudo')}"
            ) from None

    def shard_digests(self) -> dict[str, str]:
        """What the logits are: the record of each finished shard, by name."""
        records = sorted((self.path / FINISHED).glob("*-[0-9]*.json"))
        return {record.stem: record.read_text("utf-8").strip() for record in records}

    def intact(self, key: str, level: str) -> bool:
        """Whether the shard that holds a photo's logits has the bytes that were written."""
        shard = self._row[key] // self.shards[level].rows
        if (level, shard) not in self._intact:
            self._intact[level, shard] = shard_intact(self.path, level, shard)
        return self._intact[level, shard]


def array_of(root: zarr.Group, name: str) -> "zarr.Array[Any]":
    """An array of a store."""
    array = root[name]
    if not isinstance(array, zarr.Array):
        raise ValueError(f"'{name}' is no array")
    return array


def shards_of(arrays: dict[str, "zarr.Array[Any]"], path: Path) -> dict[str, Shards]:
    """The files of each level."""
    return {level: Shards.of(array, path / level / "logits") for level, array in arrays.items()}
