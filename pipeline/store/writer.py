"""Writer of a pseudo-mask store: shard by shard, resumable, reusing logits of an earlier store."""

import errno
import json
import logging
import shutil
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from zarr.codecs import ZstdCodec
from zarr.storage import LocalStore

from pipeline.store.checks import (
    Probe,
    differences,
    other_code,
    read_probe,
    same_recipe,
    write_probe,
)
from pipeline.store.plan import (
    FINISHED,
    FUSED,
    LAYOUT,
    Plan,
    damaged_layout,
    shard_file,
    shard_intact,
    shard_record,
)
from pipeline.store.reader import PseudoMaskStore, array_of
from pipeline.system.files import (
    atomic_path,
    copy_into,
    explain_full_disk,
    file_digest,
    locked,
    put_in_place,
    remove,
    write_json,
)

log = logging.getLogger("carb")
STORE = "masks.zarr"  # name of the store in a draft folder
COMPRESSOR = ZstdCodec(level=0, checksum=True)


def _create(
    path: Path, plan: Plan, text: np.ndarray, probe: Probe | None
) -> dict[str, "zarr.Array[Any]"]:
    """Create an empty store and return its arrays; the same plan gives the same files."""
    root = zarr.create_group(LocalStore(path))
    root.create_array("text", data=text, compressors=COMPRESSOR)
    arrays = {}
    for level in plan.grids:
        shape = plan.shape(level)
        arrays[level] = root.create_array(
            f"{level}/logits",
            shape=shape,
            dtype="float16",
            chunks=(1, *shape[1:]),
            shards=(plan.shard_size(level), *shape[1:]),
            compressors=COMPRESSOR,
            fill_value=0,
        )
    content = json.loads((path / "zarr.json").read_text("utf-8"))
    with (path / "zarr.json").open("w", encoding="utf-8") as handle:  # Zarr copies all of it twice
        json.dump(content | {"attributes": plan.attributes()}, handle, indent=2)
    if probe is not None:
        write_probe(path, probe)
    files = sorted(file for file in path.rglob("*") if file.is_file())
    write_json(
        path / LAYOUT, {file.relative_to(path).as_posix(): file_digest(file) for file in files}
    )
    return arrays


class StoreWriter:
    """Writes a store shard by shard into a draft folder; shards of an interrupted run are kept.

    Args:
        draft: scratch folder of this plan alone (name it by ``plan.fingerprint()``).
        plan: what the store must hold.
        text: CLIP's embedding of each class, ``[C, D]`` float32.
        previous: an earlier store whose logits may be reused, or None.
        probe: probe logits of today's code; logits are reused only where the earlier store's
            probe agrees. None: they are reused unchecked.
        alone: False: other runs may be writing other shards of the draft, so that nothing of it is
            removed.

    Raises:
        ValueError: a draft that is not ``alone`` cannot be resumed.
    """

    def __init__(
        self,
        draft: Path,
        plan: Plan,
        *,
        text: np.ndarray,
        previous: PseudoMaskStore | None,
        probe: Probe | None = None,
        alone: bool = True,
    ) -> None:
        self.plan, self.path = plan, draft / STORE
        self._previous, self._known = previous, dict[str, str]()  # digest of a photo -> key
        self._changed = dict[str, float]()
        if previous is not None:
            self._known = dict(zip(previous.attributes["digests"], previous.keys, strict=True))
            self._changed = other_code(previous, plan, probe or {})
        if self._resumable(probe or {}):
            if alone:
                for left in (self.path / FINISHED).glob(".*"):  # drafts and locks of a killed run
                    remove(left)
            root = zarr.open_group(LocalStore(self.path), mode="r+")
            self._arrays = {level: array_of(root, f"{level}/logits") for level in plan.grids}
        elif not alone and self.path.exists():
            raise ValueError(
                f"{draft}: incomplete, or of other code or another kind of machine; remove it and "
                "start all parts again"
            )
        else:
            remove(draft)
            with explain_full_disk(draft, draft):
                self._arrays = _create(self.path, plan, text, self._merged(probe))

    def _resumable(self, probe: Probe) -> bool:
        """Whether the draft is complete but for shards, and of code with the same probe logits."""
        try:
            if damaged_layout(self.path):
                return False
        except (OSError, ValueError):
            return False
        if found := differences(read_probe(self.path), probe):
            log.warning(
                "%s: its code computes other logits (they differ by %.2g); starting again",
                self.path,
                max(found.values()),
            )
        return not found

    def _merged(self, probe: Probe | None) -> Probe | None:
        """The probe to write: the previous one where it agrees, so that the bytes stay the same."""
        if self._previous is None or probe is None:
            return probe
        old = read_probe(self._previous.path)
        changed = differences(old, probe)
        return {
            name: old[name] if name in old and name not in changed else grid
            for name, grid in probe.items()
        }

    def pending(self, levels: Collection[str]) -> list[tuple[str, int]]:
        """Shards of some levels that are not finished: no record, or not the recorded bytes."""
        return [
            (level, shard)
            for level, shard in self.plan.shards(levels)
            if not shard_intact(self.path, level, shard)
        ]

    def missing(self, level: str, shard: int) -> list[int]:
        """Rows of a shard that CLIP must encode; the others are in the previous store."""
        return [row for row in self.plan.rows(level, shard) if not self._reusable(level, row)]

    def _reusable(self, level: str, row: int) -> bool:
        key = self._known.get(self.plan.photos[row].digest)
        if self._previous is None or key is None:
            return False
        if self._changed and (level == FUSED or set(self._changed) != {FUSED}):
            return False
        if not same_recipe(self._previous, self.plan, level):
            return False
        fits = self._previous.grid_size(key, level) == self.plan.grids[level][row]
        return fits and self._previous.intact(key, level)

    def _same_shard(self, level: str, shard: int) -> Path | None:
        """The previous store's file of a shard, if it holds the same photos in the same order."""
        if self._previous is None:
            return None
        there, here = self._previous.arrays[level], self._arrays[level]
        codecs, wanted = (array.metadata.to_dict()["codecs"] for array in (there, here))
        if there.shards != here.shards or codecs != wanted:
            return None
        size = self.plan.shard_size(level)
        begin = shard * size
        before = self._previous.attributes["digests"][begin : begin + size]
        if before != [self.plan.photos[row].digest for row in self.plan.rows(level, shard)]:
            return None
        intact = self._previous.intact(self._previous.keys[begin], level)
        return shard_file(self._previous.path, level, shard) if intact else None

    def read(self, row: int, level: str) -> np.ndarray:
        """Logits of a finished shard, ``[C, h, w]`` float32."""
        rows, columns = self.plan.grids[level][row]
        logits = np.asarray(self._arrays[level][row])
        return logits[:, :rows, :columns].astype(np.float32)

    def write_shard(
        self, level: str, shard: int, compute: Callable[[int], np.ndarray]
    ) -> Iterator[int]:
        """Fill a shard and write it at once.

        Args:
            level: name of the level.
            shard: index of the shard.
            compute: logits of a row, ``[C, h, w]``; called where they cannot be reused.

        Yields:
            each row when it is ready (for progress); the last one when the shard is on disk.
        """
        file = shard_file(self.path, level, shard)
        remove(file.parents[2])  # what a killed run left: Zarr would fail on it
        rows, missing = self.plan.rows(level, shard), set(self.missing(level, shard))
        same = None if missing else self._same_shard(level, shard)
        block = np.zeros((len(rows), *self.plan.shape(level)[1:]), dtype=np.float16)
        for place, row in enumerate(rows):
            if same is None:
                logits = compute(row) if row in missing else self._known_logits(level, row)
                block[place, :, : logits.shape[1], : logits.shape[2]] = logits
            if row != rows[-1]:
                yield row
        with explain_full_disk(file, file, needs=block.nbytes):
            if same is None:
                self._arrays[level][rows.start : rows.stop] = block
            else:
                file.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(same, file)
            write_json(shard_record(self.path, level, shard), file_digest(file))
        yield rows[-1]

    def _known_logits(self, level: str, row: int) -> np.ndarray:
        """Logits of a photo that the previous store holds."""
        assert self._previous is not None
        return self._previous.read(self._known[self.plan.photos[row].digest], level)


def publish(finished: Path, out: Path) -> None:
    """Move a finished store to ``out``; at any time one of the two paths holds it whole."""
    try:
        with locked(out):
            put_in_place(finished, out)
    except OSError as error:
        if error.errno != errno.EXDEV:  # another mount
            raise
        with atomic_path(out) as place:
            copy_into(finished, place)
