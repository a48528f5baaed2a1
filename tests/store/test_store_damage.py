"""Damaged stores are refused in one sentence, and damaged logits are never read."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.store.reader import PseudoMaskStore
from pipeline.system.files import file_digest
from tests.helpers.tiny_store import plan_of, write


def edit(path: Path, **attributes: Any) -> None:
    content = json.loads(path.read_text())
    content["attributes"] |= attributes
    path.write_text(json.dumps(content))


def sign(store: Path) -> None:
    """Write the digest of changed metadata."""
    layout = store / "finished/layout.json"
    content = json.loads(layout.read_text()) | {"zarr.json": file_digest(store / "zarr.json")}
    layout.write_text(json.dumps(content))


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no digests": (lambda store: (store / "finished/layout.json").unlink(), ".*layout.json.*"),
    "another format": (lambda store: edit(store / "zarr.json", format=99), "another format"),
    "another key": (
        lambda store: edit(store / "zarr.json", keys=["train/a"] * 3),
        "'zarr.json' was changed or is missing",
    ),
    "a key too few, with its digest": (
        lambda store: (edit(store / "zarr.json", keys=["train/a"]), sign(store)),
        "its attributes must have one entry per photo",
    ),
    "a grid of text, with its digest": (
        lambda store: (edit(store / "zarr.json", grids={"global": [["1", "x"]] * 3}), sign(store)),
        r"its attribute grids\.global\.0\.1: .*",
    ),
    "cut metadata": (lambda store: (store / "zarr.json").write_text("{"), ".*"),
    "a level gone": (lambda store: shutil.rmtree(store / "local"), "'local/.*json' was changed .*"),
    "a shard gone": (
        lambda store: (store / "local/logits/c/0/0/0/0").unlink(),
        "files of 'local/logits' are missing",
    ),
    "text damaged": (lambda store: (store / "text/c/0/0").write_bytes(b"x"), "'text/c/0/0' .*"),
}


def test_a_damaged_or_missing_store_is_refused_in_one_sentence(tmp_path: Path) -> None:
    whole, _ = write(tmp_path / "x", plan_of("abc"))
    for kind, (spoil, found) in SPOILT.items():
        store = tmp_path / kind / "masks.zarr"
        shutil.copytree(whole, store)
        spoil(store)
        pattern = (
            rf"zarr: incomplete or damaged pseudo-mask store \({found}\); run "
            r"`dvc repro --force --single-item pseudo` to make it again"
        )
        with pytest.raises(ValueError, match=pattern):
            PseudoMaskStore.open(store)
    for path in (tmp_path, tmp_path / "missing.zarr"):
        with pytest.raises(ValueError, match="no pseudo-mask store here; run `dvc repro pseudo`"):
            PseudoMaskStore.open(str(path))


@pytest.mark.parametrize("cut", [None, 9, 10**6])  # None: the file is missing
def test_damaged_logits_are_refused_by_the_name_of_their_photo(
    tmp_path: Path, cut: int | None
) -> None:
    path, _ = write(tmp_path / "x", plan_of("abc"))
    store, shard = PseudoMaskStore.open(path), path / "local/logits/c/1/0/0/0"
    shard.unlink() if cut is None else shard.write_bytes(shard.read_bytes()[:-cut])
    assert store.intact("train/b", "local")
    assert not store.intact("train/c", "local")
    store.read("train/b", "local")
    with pytest.raises(ValueError, match=r"the local logits of 'train/c' are damaged \(.*\); run"):
        store.read("train/c", "local")


def test_no_flipped_bit_is_ever_read_as_a_value(tmp_path: Path) -> None:
    path, _ = write(tmp_path / "x", plan_of("abc"))
    store, shard = PseudoMaskStore.open(path), path / "global/logits/c/0/0/0/0"
    wanted = {key: store.read(key, "global") for key in ("train/a", "train/b")}
    content, noticed = shard.read_bytes(), 0
    places = range(0, len(content), 3)
    for place in places:
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << place % 8
        shard.write_bytes(spoilt)
        for key, logits in wanted.items():
            try:
                assert np.array_equal(store.read(key, "global"), logits), place
            except ValueError:
                noticed += 1
    assert noticed >= len(places)  # the index concerns all photos, a chunk its own
