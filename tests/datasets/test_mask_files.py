"""Mask files: ids are read as they are stored, or refused; never as something else."""

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets import camvid
from pipeline.datasets.base import index_table, read_ids
from tests.helpers.bad_input import png

IDS = np.random.default_rng(0).integers(0, 2, (5, 9), dtype=np.uint8)


def packed(ids: np.ndarray, depth: int) -> bytes:
    """The rows of a PNG whose pixels take ``depth`` bits."""
    bits = (ids[..., None] >> np.arange(depth - 1, -1, -1)) & 1
    return b"".join(b"\0" + np.packbits(row.reshape(-1)).tobytes() for row in bits)


@pytest.mark.parametrize(
    ("depth", "colour"),
    [(2, 0), (4, 0), (8, 0), (1, 3), (2, 3), (4, 3), (8, 3)],
    ids=lambda value: {0: "grey", 3: "palette"}.get(value, f"{value} bits"),
)
def test_ids_are_read_as_stored_at_every_depth(tmp_path: Path, depth: int, colour: int) -> None:
    ids = IDS * min(2**depth - 1, 10)
    content = png(9, 5, depth=depth, colour=colour, rows=packed(ids, depth))
    if colour == 3:  # the palette stands before the pixels
        kind = b"PLTE" + bytes(range(48))[: 3 * min(2**depth, 16)]
        chunk = struct.pack(">I", len(kind) - 4) + kind + struct.pack(">I", zlib.crc32(kind))
        content = content[:33] + chunk + content[33:]
    (tmp_path / "mask.png").write_bytes(content)
    assert np.array_equal(read_ids(tmp_path / "mask.png", index_table(11)), ids)


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_formats_that_change_ids_are_no_masks(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "mask.png"
    Image.fromarray(IDS).save(path, kind)
    with pytest.raises(ValueError, match=rf"mask.png: a mask must be a PNG, found {kind}, .*PNG$"):
        read_ids(path, index_table(11))
    Image.fromarray(np.stack([IDS] * 3, axis=2)).save(path, kind)
    with pytest.raises(ValueError, match="must be a PNG"):
        camvid.read_colours(path)


@pytest.mark.parametrize("mode", ["1", "LA", "RGB", "RGBA"])
def test_masks_of_several_channels_are_refused(tmp_path: Path, mode: str) -> None:
    Image.fromarray(IDS).convert(mode).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match="must be one 8-bit channel of class ids"):
        read_ids(tmp_path / "mask.png", index_table(11))


def test_masks_of_16_bits_are_refused(tmp_path: Path) -> None:
    Image.fromarray(IDS.astype(np.uint16)).save(tmp_path / "mask.png")
    with pytest.raises(ValueError, match="a mask must have 8 bits a channel"):
        read_ids(tmp_path / "mask.png", index_table(11))
