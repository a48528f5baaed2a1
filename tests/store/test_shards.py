"""Rows of a sharded array are read as Zarr reads them."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from zarr.codecs import ZstdCodec

from pipeline.store.shards import COMPRESSOR, Shards

VALUES = np.random.default_rng(0).normal(size=(5, 2, 3, 4)).astype(np.float16)


def array_of(folder: Path, rows: int, **changes: Any) -> "zarr.Array[Any]":
    """The values in shards of so many rows; the third row is all zeros, so Zarr stores none."""
    options: dict[str, Any] = {"compressors": COMPRESSOR, "dtype": "float16"} | changes
    array = zarr.create_array(
        folder, shape=VALUES.shape, chunks=(1, 2, 3, 4), shards=(rows, 2, 3, 4), **options
    )
    array[:] = VALUES * (np.arange(5) != 2)[:, None, None, None]
    return array


@pytest.mark.parametrize("rows", [1, 2, 5, 8])
def test_each_row_comes_as_zarr_reads_it(tmp_path: Path, rows: int) -> None:
    array = array_of(tmp_path, rows, fill_value=1)  # zeros are stored, too
    shards = Shards.of(array, tmp_path)
    assert (shards.rows, shards.shape) == (rows, (2, 3, 4))
    for row in range(5):
        read = shards.read(row)
        assert (read.dtype, read.flags.writeable) == (np.float16, True)
        assert np.array_equal(read, array[row])


def test_a_row_of_zeros_that_zarr_left_out_is_read_as_zeros(tmp_path: Path) -> None:
    shards = Shards.of(array_of(tmp_path, 4), tmp_path)
    assert np.array_equal(shards.read(2), np.zeros((2, 3, 4)))
    assert np.array_equal(shards.read(3), VALUES[3])


def test_no_flipped_bit_is_ever_read_as_a_value(tmp_path: Path) -> None:
    array = array_of(tmp_path, 4)
    shards, values = Shards.of(array, tmp_path), np.asarray(array)
    content, noticed = shards.file(0).read_bytes(), 0
    for place in range(len(content)):
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << place % 8
        shards.file(0).write_bytes(spoilt)
        for row in range(4):
            try:
                read = shards.read(row)
            except (ValueError, RuntimeError):
                noticed += 1
            else:
                assert np.array_equal(read, values[row]), place
    assert noticed >= len(content)  # the index concerns all rows, a chunk its own


@pytest.mark.parametrize(
    "changes", [{"compressors": None}, {"compressors": ZstdCodec(level=3)}, {"dtype": "float32"}]
)
def test_another_layout_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="is sharded or compressed otherwise"):
        Shards.of(array_of(tmp_path, 4, **changes), tmp_path)


@pytest.mark.parametrize("place", [-1, -10, -40])  # checksum, index of absent rows, of present ones
def test_a_damaged_index_is_told(tmp_path: Path, place: int) -> None:
    shards = Shards.of(array_of(tmp_path, 4), tmp_path)
    content = bytearray(shards.file(0).read_bytes())
    content[place] ^= 1
    shards.file(0).write_bytes(content)
    assert np.array_equal(shards.read(4), VALUES[4])  # of another shard
    with pytest.raises(ValueError, match="checksum of its shard's index is wrong"):
        shards.read(0)


@pytest.mark.parametrize("size", [0, 3, 40])
def test_a_shard_that_was_cut_off_is_told(tmp_path: Path, size: int) -> None:
    shards = Shards.of(array_of(tmp_path, 4), tmp_path)
    shards.file(0).write_bytes(shards.file(0).read_bytes()[:size])
    with pytest.raises(ValueError, match="checksum of its shard's index is wrong"):
        shards.read(0)


def test_a_shard_that_is_gone_is_told(tmp_path: Path) -> None:
    shards = Shards.of(array_of(tmp_path, 4), tmp_path)
    shards.file(1).unlink()
    with pytest.raises(FileNotFoundError):
        shards.read(4)
