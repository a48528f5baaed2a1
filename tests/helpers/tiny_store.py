"""A pseudo-mask store of a few small photos, filled by a stand-in for CLIP that records calls."""

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.store.plan import Grid, Photo, Plan
from pipeline.store.reader import PseudoMaskStore
from pipeline.store.writer import StoreWriter

CLASSES = ["road", "car", "sky"]
TEXT = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
RECIPE = {"weights": "abc", "levels": {"global": {"zoom": 1.0}, "local": {"zoom": 2.0}}}
SIZES: dict[str, Grid] = {"a": (2, 3), "b": (4, 2), "c": (3, 3), "d": (1, 4), "e": (2, 2)}


def plan_of(names: str, recipe: dict[str, Any] = RECIPE) -> Plan:
    """Photos named by one letter each, of different sizes; the local level has twice the cells."""
    photos = [Photo(f"train/{name}", f"digest of {name}", SIZES[name]) for name in names]
    grids = {
        "global": [photo.size for photo in photos],
        "local": [(2 * photo.size[0], 2 * photo.size[1]) for photo in photos],
    }
    return Plan(recipe, CLASSES, photos, grids)


def logits_of(photo: Photo, level: str, grid: Grid) -> np.ndarray:
    """Logits of a photo: a function of its bytes and the level alone."""
    seed = hashlib.sha256(f"{photo.digest} {level}".encode()).digest()[0]
    return np.random.default_rng(seed).normal(size=(3, *grid)).astype(np.float32)


class Clip:
    """Computes logits for a plan and records for which photos."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.asked: list[tuple[str, str]] = []

    def on(self, level: str) -> Callable[[int], np.ndarray]:
        def compute(row: int) -> np.ndarray:
            photo = self.plan.photos[row]
            self.asked.append((level, photo.key[-1]))
            return logits_of(photo, level, self.plan.grids[level][row])

        return compute


def write(
    draft: Path, plan: Plan, *, previous: PseudoMaskStore | None = None
) -> tuple[Path, list[tuple[str, str]]]:
    """Write all that is pending; returns the store, and level and photo of each call of CLIP."""
    writer, clip = StoreWriter(draft, plan, text=TEXT, previous=previous), Clip(plan)
    for level, shard in writer.pending(plan.grids):
        rows = writer.write_shard(level, shard, clip.on(level))
        assert list(rows) == list(plan.rows(level, shard))
    assert writer.pending(plan.grids) == []
    return writer.path, clip.asked


def digests(folder: Path) -> dict[str, str]:
    """SHA-256 of each file under a folder."""
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def store_of_logits(
    draft: Path, logits: dict[str, dict[str, np.ndarray]], sizes: dict[str, Grid]
) -> PseudoMaskStore:
    """Write logits, level -> key -> ``[C, h, w]``, and open them; ``sizes`` are the photos'."""
    num_classes = len(next(iter(next(iter(logits.values())).values())))
    plan = Plan(
        recipe={"made": "in a test"},
        classes=[f"class {index}" for index in range(num_classes)],
        photos=[Photo(key, key, size) for key, size in sizes.items()],
        grids={level: [grids[key].shape[1:] for key in sizes] for level, grids in logits.items()},
    )
    text = np.eye(num_classes, 8, dtype=np.float32)
    writer = StoreWriter(draft, plan, text=text, previous=None)
    keys = list(sizes)
    for level, shard in writer.pending(writer.plan.grids):
        rows = writer.write_shard(level, shard, lambda row, of=logits[level]: of[keys[row]])
        assert list(rows)
    return PseudoMaskStore.open(writer.path)
