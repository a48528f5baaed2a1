"""Single rows out of a sharded Zarr array, at what the disk and the codec take.

Zarr spends 1.5 to 4 ms on a chunk, most of it on the way between its threads; this reads the same
bytes in 0.1 ms. A shard is a file of compressed chunks, then their index (where each begins and how
long it is), then the index's CRC-32C. Each chunk ends with its own checksum, which decoding checks.
Source: https://zarr-specs.readthedocs.io/en/latest/v3/codecs/sharding-indexed/index.html
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import zarr
from numcodecs import Zstd
from zarr.codecs import ZstdCodec

COMPRESSOR = ZstdCodec(level=0, checksum=True)  # what `Shards` reads; writers name it
_ABSENT = 2**64 - 1  # offset and length of a chunk of zeros, which is not stored
_CRC_BYTES = 4
_CODECS = [
    {"name": "bytes", "configuration": {"endian": "little"}},
    {"name": "zstd", "configuration": {"level": 0, "checksum": True}},
]
_INDEX_CODECS = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]


@dataclass(frozen=True)
class Shards:
    """The rows of an array ``[N, ...]`` float16, one chunk a row, many rows a shard.

    Attributes:
        folder: of the array.
        rows: of a full shard.
        shape: of a row.
    """

    folder: Path
    rows: int
    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: "zarr.Array[Any]", folder: Path) -> "Shards":
        """The shards of an array that lies in ``folder``.

        Raises:
            ValueError: the array is laid out or compressed otherwise.
        """
        inner = {
            "chunk_shape": [1, *array.shape[1:]],
            "codecs": _CODECS,
            "index_codecs": _INDEX_CODECS,
            "index_location": "end",
        }
        wanted = [{"name": "sharding_indexed", "configuration": inner}]
        found = json.loads(json.dumps(array.metadata.to_dict()["codecs"]))
        if found != wanted or array.dtype != np.float16:
            raise ValueError(f"'{array.path}' is sharded or compressed otherwise")
        assert array.shards is not None
        return cls(folder, array.shards[0], array.shape[1:])

    def file(self, shard: int) -> Path:
        """File of a shard."""
        return self.folder / f"c/{shard}{'/0' * len(self.shape)}"

    def read(self, row: int) -> np.ndarray:
        """A row, ``shape`` float16.

        Raises:
            ValueError, RuntimeError, OSError: its file is damaged or missing.
        """
        shard, place = divmod(row, self.rows)
        handle = os.open(self.file(shard), os.O_RDONLY)
        try:
            offset, length = self._index(handle)[place].tolist()
            if (offset, length) == (_ABSENT, _ABSENT):
                return np.zeros(self.shape, np.float16)
            content = os.pread(handle, length, offset)
        finally:
            os.close(handle)
        values = np.frombuffer(Zstd().decode(content), "<f2")
        return values.reshape(self.shape).copy()  # what is decoded cannot be written to

    def _index(self, handle: int) -> np.ndarray:
        """Offset and length of each chunk of an open shard, ``[rows, 2]`` uint64."""
        size = 16 * self.rows + _CRC_BYTES
        end = os.fstat(handle).st_size
        content = os.pread(handle, size, max(0, end - size))
        index, crc = content[:-_CRC_BYTES], content[-_CRC_BYTES:]
        if len(content) < size or google_crc32c.value(index) != int.from_bytes(crc, "little"):
            raise ValueError("the checksum of its shard's index is wrong")
        return np.frombuffer(index, "<u8").reshape(self.rows, 2)
