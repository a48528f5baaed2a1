"""Layout of a pseudo-mask store: content, shards, files and digests.

One group per level, each with the array ``logits [N, C, h, w]`` float16, one chunk per photo, many
photos per shard; the grid of a photo smaller than the largest one is in the top left corner. Logits
are stored before any image-level label is applied, so the cache serves every label set. The root
attributes hold what made the content (``recipe``) and the digest of each photo's file. The folder
``finished`` holds probe logits (see `pipeline.store.checks`) and the SHA-256 of every file.
"""

import json
import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BaseModel, Field, PositiveInt, StrictStr, ValidationError, model_validator

from pipeline.system.files import file_digest, fingerprint

FORMAT = 2
SHARD_BYTES = 64 * 2**20  # few large files: DVC and object stores are slow with many small ones
SHARD_PHOTOS = 50  # upper limit: a killed run repeats, and appended photos rewrite, at most these
FUSED = "fused"  # the level made of all others
FINISHED = "finished"  # folder of digests
LAYOUT = f"{FINISHED}/layout.json"  # digests of all files but shards
Grid = tuple[int, int]
_Pair = Annotated[list[PositiveInt], Field(min_length=2, max_length=2)]


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
        recipe: CLIP's weights and settings; equal recipes and photos give equal logits. Its entry
            ``levels``, if any, holds the settings of each level.
        classes: class names, by index.
        photos: what is stored, in order.
        grids: for each level the ``(h, w)`` of each photo.
    """

    recipe: dict[str, Any]
    classes: list[str]
    photos: list[Photo]
    grids: dict[str, list[Grid]]

    @cached_property
    def _largest(self) -> dict[str, list[int]]:
        """Height and width that hold every photo's grid, by level."""
        return {level: [*map(max, zip(*grids, strict=True))] for level, grids in self.grids.items()}

    def shape(self, level: str) -> tuple[int, int, int, int]:
        """Shape of a level's array, ``N, C, h, w``: its grid holds that of every photo."""
        height, width = self._largest[level]
        return len(self.photos), len(self.classes), height, width

    def shard_size(self, level: str) -> int:
        """Photos per shard; independent of ``N``: appended photos leave full shards unchanged."""
        photo_bytes = 2 * math.prod(self.shape(level)[1:])
        return max(1, min(SHARD_PHOTOS, SHARD_BYTES // photo_bytes))

    def num_shards(self, level: str) -> int:
        """Number of shards of a level."""
        return -(-len(self.photos) // self.shard_size(level))

    def shards(self, levels: Collection[str]) -> list[tuple[str, int]]:
        """Level and number of each shard of some levels."""
        return [(level, shard) for level in levels for shard in range(self.num_shards(level))]

    def rows(self, level: str, shard: int) -> range:
        """The rows of a shard."""
        size = self.shard_size(level)
        return range(shard * size, min((shard + 1) * size, len(self.photos)))

    def num_bytes(self) -> int:
        """Bytes of all logits before compression, without padding."""
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
        """Digest of the plan: equal fingerprints, equal bytes (on one kind of machine)."""
        sizes = {level: self.shard_size(level) for level in self.grids}
        return fingerprint(self.attributes() | {"shards": sizes})


class _Attributes(BaseModel):
    recipe: dict[str, Any]
    classes: Annotated[list[StrictStr], Field(min_length=1)]
    keys: list[StrictStr]
    digests: list[StrictStr]
    sizes: list[_Pair]
    grids: Annotated[dict[str, list[_Pair]], Field(min_length=1)]

    @model_validator(mode="after")
    def _one_per_photo(self) -> Self:
        counts = {len(self.keys), len(self.digests), len(self.sizes)}
        counts |= {len(grids) for grids in self.grids.values()}
        if len(counts) > 1 or len(set(self.keys)) < len(self.keys):
            raise ValueError("must have one entry per photo")
        return self


def check_attributes(attributes: dict[str, Any]) -> None:
    """Refuse root attributes that no store has.

    Raises:
        ValueError: names the attribute.
    """
    try:
        _Attributes.model_validate(attributes)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(part) for part in first["loc"])
        problem = first["msg"].removeprefix("Value error, ")
        raise ValueError(
            f"its attribute {place}: {problem}" if place else f"its attributes {problem}"
        ) from None


def shard_intact(store: Path, level: str, shard: int) -> bool:
    """Whether a shard has the digest of its record."""
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
    """Name of a file other than a shard that was changed or is missing, or "".

    Raises:
        OSError, ValueError: the record of their digests cannot be read.
    """
    digests: dict[str, str] = json.loads((store / LAYOUT).read_text("utf-8"))
    for name, digest in digests.items():
        file = store / name
        if not file.is_file() or file_digest(file) != digest:
            return name
    return ""
