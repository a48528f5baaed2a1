"""Reader of a store: CLIP's cached patch logits, and pseudo-masks of whole photos.

For the layout of the store see `pipeline.store.plan`.
"""

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
import zarr
from torch import Tensor
from zarr.storage import LocalStore

from pipeline.store.plan import (
    FINISHED,
    FORMAT,
    FUSED,
    Grid,
    check_attributes,
    damaged_layout,
    shard_file,
    shard_intact,
)
from pipeline.system.text import error_text, rebuild_hint


class PseudoMaskStore:
    """Read access to a finished store; use `open`.

    Attributes:
        keys: the photos.
        classes: class names, by index.
        levels: the global level, the local ones, then the fused one if there is one.
        sizes: ``(height, width)`` of each photo, by key.
        text: CLIP's embedding of each class, ``[C, D]`` float32.
        arrays: the logits of each level.
    """

    def __init__(self, path: Path, root: zarr.Group) -> None:
        self.path = path
        attributes: dict[str, Any] = root.attrs.asdict()
        self.attributes = attributes
        self.keys: list[str] = attributes["keys"]
        self.classes: list[str] = attributes["classes"]
        self.levels: list[str] = list(attributes["grids"])
        self.sizes: dict[str, tuple[int, int]] = {
            key: (height, width)
            for key, (height, width) in zip(self.keys, attributes["sizes"], strict=True)
        }
        text = array_of(root, "text")
        self.text: np.ndarray = np.asarray(text)
        self._row = {key: row for row, key in enumerate(self.keys)}
        self.arrays = {level: array_of(root, f"{level}/logits") for level in self.levels}
        for array in (text, *self.arrays.values()):
            if array.nchunks_initialized < array.nchunks:  # Zarr would read zeros
                raise ValueError(f"files of '{array.path}' are missing")
        arrays = self.arrays.values()
        if any(array.shape[0] != len(self.keys) or not array.shards for array in arrays):
            raise ValueError("its arrays do not fit its keys")
        self._intact: dict[tuple[str, int], bool] = {}

    @classmethod
    def open(cls, path: Path | str) -> "PseudoMaskStore":
        """Open a finished store; a ValueError says that there is none or that it is damaged."""
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
                raise ValueError(f"'{damaged}' was changed or is missing")
            check_attributes(root.attrs.asdict())
            return cls(path, root)
        except Exception as error:  # damaged files make Zarr and its codecs raise many kinds
            raise ValueError(
                f"{path}: incomplete or damaged pseudo-mask store ({error_text(error)}); "
                f"{rebuild_hint('pseudo')}"
            ) from None

    @property
    def global_level(self) -> str:
        """The level that global views use: the fused one if there is one, else the first."""
        return FUSED if FUSED in self.levels else self.levels[0]

    @property
    def local_levels(self) -> list[str]:
        """The levels that local views use."""
        return [level for level in self.levels[1:] if level != FUSED]

    def grid_size(self, key: str, level: str) -> Grid:
        """``(h, w)`` of a photo's logits at a level."""
        rows, columns = self.attributes["grids"][level][self._row[key]]
        return rows, columns

    def read(self, key: str, level: str) -> np.ndarray:
        """Patch logits of a photo, ``[C, h, w]`` float32, a grid that spans it."""
        rows, columns = self.grid_size(key, level)
        return self.read_padded(key, level)[:, :rows, :columns].astype(np.float32)

    def read_padded(self, key: str, level: str) -> np.ndarray:
        """Patch logits as stored, ``[C, h, w]`` float16 of the level's largest grid, padded with 0.

        Raises:
            ValueError: the file is damaged or missing.
        """
        try:
            if not shard_file(self.path, level, self._shard(key, level)).is_file():
                raise FileNotFoundError("its shard is missing")  # Zarr would read zeros
            return np.asarray(self.arrays[level][self._row[key]])
        except Exception as error:  # checksum, decompression, disk: Zarr raises many kinds
            raise ValueError(
                f"{self.path}: the {level} logits of '{key}' are damaged ({error_text(error)}); "
                f"{rebuild_hint('pseudo')}"
            ) from None

    def shard_digests(self) -> dict[str, str]:
        """The digest of each finished shard, by name: they identify the logits."""
        records = sorted((self.path / FINISHED).glob("*-[0-9]*.json"))
        return {record.stem: record.read_text("utf-8").strip() for record in records}

    def intact(self, key: str, level: str) -> bool:
        """Whether the shard of a photo's logits has the recorded digest."""
        shard = self._shard(key, level)
        if (level, shard) not in self._intact:
            self._intact[level, shard] = shard_intact(self.path, level, shard)
        return self._intact[level, shard]

    def _shard(self, key: str, level: str) -> int:
        shards = self.arrays[level].shards
        assert shards is not None
        return self._row[key] // int(shards[0])


def array_of(root: zarr.Group, name: str) -> "zarr.Array[Any]":
    """An array of a store."""
    array = root[name]
    if not isinstance(array, zarr.Array):
        raise ValueError(f"'{name}' is not an array")
    return array


def hard_mask(logits: Tensor, image_labels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pseudo-mask of a whole photo: upsampled logits, arg-max over the classes present.

    For evaluation and previews. Training makes the masks of its crops: `SampledLogits.hard_masks`.

    Args:
        logits: ``[C, h, w]`` float, a grid that spans the photo.
        image_labels: ``[C]`` bool.
        size: ``(height, width)`` of the mask.

    Returns:
        ``[H, W]`` int64.
    """
    full = upsampled(logits, size)
    present = full.masked_fill(~image_labels[:, None, None], -torch.inf)
    return present.max(dim=0).indices  # argmax is 6 times as slow on a CPU


def upsampled(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits of a whole photo at the size of its mask, ``[C, h, w] -> [C, H, W]`` float32."""
    return F.interpolate(logits[None].float(), size, mode="bilinear", align_corners=False)[0]
