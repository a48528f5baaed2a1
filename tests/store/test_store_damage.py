"""A store that is not whole is refused in one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import pipeline.store.plan
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.files import file_digest
from tests.helpers.tiny_store import plan_of, write


@pytest.fixture(autouse=True)
def _two_photos_a_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.store.plan, "SHARD_PHOTOS", 2)


def edit(path: Path, **attributes: Any) -> None:
    content = json.loads(path.read_text())
    content["attributes"] |= attributes
    path.write_text(json.dumps(content))


def sign(store: Path) -> None:
    """Write the digest of changed metadata, as a hostile hand would."""
    layout = store / "finished/layout.json"
    content = json.loads(layout.read_text()) | {"zarr.json": file_digest(store / "zarr.json")}
    layout.write_text(json.dumps(content))


def cut(count: int) -> Callable[[Path], object]:
    """Cut bytes off the end of a file."""
    return lambda file: file.write_bytes(file.read_bytes()[:-count])


SPOILT: dict[str, tuple[Callable[[Path], object], str]] = {
    "no digests": (lambda store: (store / "finished/layout.json").unlink(), ".*layout.json.*"),
    "another format": (lambda store: edit(store / "zarr.json", format=99), "another format"),
    "no store of ours": (
        lambda store: (store / "zarr.json").write_text('{"zarr_format":3,"node_type":"group"}'),
        "another format",
    ),
    "another key": (
        lambda store: edit(store / "zarr.json", keys=["train/a"] * 3),
        "'zarr.json' was changed or is missing",
    ),
    "a key too few, with its digest": (
        lambda store: (edit(store / "zarr.json", keys=["train/a"]), sign(store)),
        "its attributes must have one entry per photo",
    ),
    "cut metadata": (lambda store: (store / "zarr.json").write_text("{"), ".*"),
    "null metadata": (lambda store: (store / "zarr.json").write_text("null"), ".*"),
    "a level gone": (
        lambda store: shutil.rmtree(store / "local"),
        "'local/.*zarr.json' was changed .*",
    ),
    "a shard gone": (
        lambda store: (store / "local/logits/c/0/0/0/0").unlink(),
        "files of 'local/logits' are missing",
    ),
    "text gone": (lambda store: shutil.rmtree(store / "text/c"), "'text/c/0/0' was changed .*"),
    "text damaged": (lambda store: (store / "text/c/0/0").write_bytes(b"x"), "'text/c/0/0' .*"),
}


@pytest.mark.parametrize("kind", SPOILT)
def test_what_is_no_whole_store_is_refused_in_one_sentence(tmp_path: Path, kind: str) -> None:
    spoil, found = SPOILT[kind]
    store, _ = write(tmp_path / "x", plan_of("abc"))
    spoil(store)
    pattern = (
        rf"zarr: incomplete or damaged pseudo-mask store \({found}\); run "
        r"`dvc repro --force --single-item pseudo` to make it again"
    )
    with pytest.raises(ValueError, match=pattern):
        PseudoMaskStore.open(store)


@pytest.mark.parametrize("there", [False, True])
def test_a_missing_store_says_what_makes_it(tmp_path: Path, there: bool) -> None:
    path = tmp_path if there else tmp_path / "masks.zarr"
    with pytest.raises(ValueError, match="no pseudo-mask store here; run `dvc repro pseudo`"):
        PseudoMaskStore.open(str(path))


@pytest.mark.parametrize("damage", [lambda shard: shard.unlink(), cut(9), cut(70), cut(10**6)])
def test_damaged_logits_are_refused_with_the_photo_they_belong_to(
    tmp_path: Path, damage: Callable[[Path], object]
) -> None:
    path, _ = write(tmp_path / "x", plan_of("abc"))
    store = PseudoMaskStore.open(path)
    damage(path / "local/logits/c/1/0/0/0")
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
    for place in range(len(content)):
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << place % 8
        shard.write_bytes(spoilt)
        for key, logits in wanted.items():
            try:
                assert np.array_equal(store.read(key, "global"), logits), place
            except ValueError:
                noticed += 1
    assert noticed >= len(content)  # the index concerns all photos, a chunk its own
