"""Logits as float16, as the store holds them, against int8 with one scale a photo and level."""

import statistics
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from numcodecs import Zstd
from numcodecs.abc import Codec

from bench.timing import Measure, race, ratio, spread
from bench.workload import Workload, draw_street, random_clip, store_maker
from pipeline.store.masks import hard_mask
from pipeline.store.reader import PseudoMaskStore

CODEC: Codec = Zstd(level=0)  # the store's


def number_format(work: Workload, folder: Path) -> Iterator[Measure]:
    """Size, decoding time and labels of int8 logits, in terms of float16's."""
    street = draw_street(folder, train=work.photos)
    store = PseudoMaskStore.open(store_maker(street, random_clip(""))())
    grids = [
        (photo, store.read(photo.key, level).astype(np.float16))
        for photo in street.index.photos
        for level in store.levels
    ]
    scales = [float(np.abs(logits).max()) / 127 for _, logits in grids]
    rounded = [
        np.rint(logits.astype(np.float32) / scale).astype(np.int8)
        for (_, logits), scale in zip(grids, scales, strict=True)
    ]
    bytes16 = [CODEC.encode(logits) for _, logits in grids]
    bytes8 = [CODEC.encode(values) for values in rounded]

    def decode_float16() -> None:
        for content in bytes16:
            np.frombuffer(CODEC.decode(content), np.float16).astype(np.float32)

    def decode_int8() -> None:
        for content, scale in zip(bytes8, scales, strict=True):
            np.frombuffer(CODEC.decode(content), np.int8).astype(np.float32) * np.float32(scale)

    yield spread(
        "store",
        "bytes of a photo's logits in int8, of float16's",
        [len(b) / len(a) for a, b in zip(bytes16, bytes8, strict=True)],
        target=None,
        details={"float16, bytes": round(statistics.mean(map(len, bytes16)))},
    )
    yield ratio(
        "store",
        "time to decode int8, of float16's",
        race(
            {"float16": decode_float16, "int8": decode_int8},
            wait=lambda: None,
            seconds=work.seconds / 6,
            least=work.least,
        ),
        of="int8",
        to="float16",
        target=None,
        details={"grids a round": len(grids)},
    )
    equal = []
    for (photo, logits), values in zip(grids, rounded, strict=True):
        present = torch.from_numpy(street.labels[photo.key])
        ours, theirs = (
            hard_mask(torch.from_numpy(each), present, photo.size) for each in (logits, values)
        )
        equal.append(100 * float((ours == theirs).float().mean()))
    yield spread("store", "labels of int8 equal to float16's", equal, target=None, unit="%")
