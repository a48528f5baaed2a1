"""Build the pseudo-mask store: every photo through CLIP once (stage `pseudo`)."""

import logging
import math
import re
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, TypeVar, cast

import torch
from PIL import Image
from torch import Tensor

from pipeline.clip.dense import DenseClip
from pipeline.clip.levels import fused_grid, fused_logits, level_grid, level_logits, probe_logits
from pipeline.clip.windows import exposed, magnified
from pipeline.config.clip import ClipParams
from pipeline.scenes.index import SceneIndex, read_unchanged
from pipeline.store.checks import Probe, clip_settings, other_code
from pipeline.store.plan import FUSED, Photo, Plan
from pipeline.store.reader import PseudoMaskStore
from pipeline.store.writer import StoreWriter, publish
from pipeline.system.devices import lock_on_rank_zero, precision_of
from pipeline.system.files import (
    bytes_below,
    check_room,
    locked,
    remove,
    same_disk,
)
from pipeline.system.progress import READERS, prefetch_in_threads, progress, stream_to_cpu

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger("carb")
T = TypeVar("T")
LOGITS_VERSION = 2  # part of every store's recipe; the probe detects changes of the code
PREFETCH_BYTES = 2**29  # of photos that are decoded and resized in advance
CREATION_S = 60.0  # parts wait as long for the one that creates the draft


class Part(NamedTuple):
    """One of several separate runs that share the shards, such as an element of a job array.

    Attributes:
        number: from 1.
        total: of the runs.
    """

    number: int
    total: int

    @classmethod
    def parse(cls, text: str) -> "Part":
        """A part written as ``2/8``.

        Raises:
            ValueError: it is not.
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        part = cls(int(match[1]), int(match[2])) if match else cls(0, 0)
        if not 1 <= part.number <= part.total:
            raise ValueError(f"--part must be NUMBER/TOTAL, such as 2/8, got '{text}'")
        return part

    def lock(self, draft: Path) -> Path:
        """What a running part locks."""
        return draft.with_name(f"{draft.name}-part-{self.number}-of-{self.total}")


def build_store(
    fabric: "Fabric",
    clip: DenseClip,
    index: SceneIndex,
    *,
    root: Path,
    params: ClipParams,
    templates: list[str],
    out: Path,
    scratch: Path,
    part: Part | None = None,
) -> None:
    """Bring the store at ``out`` up to date; an interrupted run is resumed.

    With ``part``, only run CLIP on its shards; a run without ``part`` then finds them in
    ``scratch``.

    Args:
        fabric: the devices.
        clip: the frozen model.
        index: the photos.
        root: folder of the data set.
        params: levels, words and dense mode.
        templates: prompt templates, format strings.
        out: path of the store.
        scratch: folder for work in progress.
        part: which shards; None: all, and the store is finished.
    """
    plan = plan_store(
        index, clip, params=params, templates=templates, precision=precision_of(fabric)
    )
    clip.to(fabric.device)
    text = clip.embed_text(index.label_space.words(params.class_prompts), templates)
    probe = _probe(fabric, clip, text, params)
    draft = scratch / f"pseudo-{plan.fingerprint()[:16]}"
    with lock_on_rank_zero(fabric, part.lock(draft) if part else draft):
        previous = _previous(out)
        if fabric.global_rank == 0:
            if part is None:
                _check_no_part_runs(draft)
            _check_room(plan, draft, out)
            if previous is not None and (changed := other_code(previous, plan, probe)):
                _warn_of_other_code(out, changed)
        finished = write_store(
            fabric,
            clip,
            text,
            plan,
            paths=[photo.path(root) for photo in index.photos],
            params=params,
            draft=draft,
            previous=previous,
            probe=probe,
            part=part,
        )
        if fabric.global_rank == 0 and part is None:
            publish(finished, out)
            remove(draft)
    fabric.barrier()


def plan_store(
    index: SceneIndex,
    clip: DenseClip,
    *,
    params: ClipParams,
    templates: list[str],
    precision: str,
) -> Plan:
    """Everything that determines the content of the store."""
    recipe = clip_settings(params, index.label_space.words(params.class_prompts)) | {
        "maths": LOGITS_VERSION,
        "weights": clip.weights_digest(),
        "sentences": templates,
        "precision": precision,
    }
    photos = [Photo(photo.key, photo.digest, photo.size) for photo in index.photos]
    grids = {
        name: [level_grid(photo.size, level, clip.patch_size) for photo in photos]
        for name, level in params.levels.items()
    }
    if params.fused is not None:
        grids[FUSED] = [fused_grid(photo.size, params.fused) for photo in photos]
    return Plan(recipe, index.label_space.names, photos, grids)


def write_store(
    fabric: "Fabric",
    clip: DenseClip,
    text: Tensor,
    plan: Plan,
    *,
    paths: list[Path],
    params: ClipParams,
    draft: Path,
    previous: PseudoMaskStore | None,
    probe: Probe | None = None,
    part: Part | None = None,
) -> Path:
    """Run CLIP on the photos that neither the draft nor the previous store holds.

    Each process writes its share of the shards; without ``part`` the fused level follows.

    Args:
        fabric: the devices.
        clip: the frozen model, on this process's device.
        text: class embeddings, ``[C, D]``.
        plan: what to write.
        paths: file of each photo of the plan.
        params: the levels, and how they are fused.
        draft: scratch folder of this plan.
        previous: an earlier store, or None.
        probe: see `StoreWriter`.
        part: see `build_store`.

    Returns:
        the finished store within ``draft``.
    """
    writer_of_draft = partial(
        StoreWriter,
        draft,
        plan,
        text=text.cpu().numpy(),
        previous=previous,
        probe=probe,
        alone=part is None,
    )
    writer = _open_draft(fabric, draft, writer_of_draft, part)

    def load(level: str, row: int) -> Tensor:
        photo = read_unchanged(paths[row], plan.photos[row].digest)
        seen = exposed(photo, params.brightness)
        pixels = magnified(seen, params.levels[level], patch_size=clip.patch_size)
        return pixels.pin_memory() if fabric.device.type == "cuda" else pixels

    def encode(level: str, pixels: Tensor) -> Tensor:
        with fabric.autocast():
            return level_logits(pixels, params.levels[level], clip, text)

    cells = max(math.prod(plan.shape(level)[2:]) for level in params.levels)
    threads = max(1, min(READERS, PREFETCH_BYTES // (2 * 3 * clip.patch_size**2 * cells)))
    levels = list(params.levels)
    _write_missing(fabric, writer, levels, load, encode, label="CLIP", threads=threads, part=part)
    if params.fused is not None and part is None:
        _fuse_levels(fabric, writer, paths, params)
    return writer.path


def _open_draft(
    fabric: "Fabric", draft: Path, open_draft: Callable[[], StoreWriter], part: Part | None
) -> StoreWriter:
    """Open the draft on all processes, after rank zero has created it."""
    if fabric.global_rank == 0:
        with locked(draft, wait_s=CREATION_S) if part else nullcontext():
            open_draft()
    fabric.barrier()
    if not draft.is_dir():
        raise ValueError(f"{draft}: not found on this node; all nodes must share the folder")
    return open_draft()


def _fuse_levels(
    fabric: "Fabric", writer: StoreWriter, paths: list[Path], params: ClipParams
) -> None:
    """Compute the fused level from all others, which are on disk."""
    fused = params.fused
    assert fused is not None

    def load(_: str, row: int) -> tuple[Image.Image, list[Tensor]]:
        grids = [torch.from_numpy(writer.read(row, name)) for name in params.levels]
        return read_unchanged(paths[row], writer.plan.photos[row].digest), grids

    def fuse_grids(_: str, loaded: tuple[Image.Image, list[Tensor]]) -> Tensor:
        photo, grids = loaded
        return fused_logits(photo, [grid.to(fabric.device) for grid in grids], fused)

    _write_missing(fabric, writer, [FUSED], load, fuse_grids, label="fuse", threads=READERS)


def _write_missing(
    fabric: "Fabric",
    writer: StoreWriter,
    levels: list[str],
    load: Callable[[str, int], T],
    compute: Callable[[str, T], Tensor],
    *,
    label: str,
    threads: int,
    part: Part | None = None,
) -> None:
    """Compute and write this process's share of the missing shards of some levels.

    ``load`` reads the input of a level and row, in advance, in ``threads`` threads; ``compute``
    makes the logits at a level.
    """
    number, total = part or (1, 1)
    of_part = writer.plan.shards(levels)[number - 1 :: total]
    pending = set(writer.pending(levels))
    left = [shard for shard in of_part if shard in pending]
    shards = left[fabric.global_rank :: fabric.world_size]
    fabric.barrier()  # no process writes before all have listed what is missing
    jobs = [(level, row) for level, shard in shards for row in writer.missing(level, shard)]
    views = sum(len(writer.plan.rows(level, shard)) for level, shard in of_part)
    own = torch.tensor(len(jobs), device=fabric.device)
    new = int(cast("Tensor", fabric.all_reduce(own, reduce_op="sum")))
    log.info("%s: %d views to compute, %d in the cache", label, new, views - new)
    inputs = prefetch_in_threads(jobs, lambda job: (job[0], load(*job)), threads=threads)
    computed = stream_to_cpu(compute(level, loaded).half() for level, loaded in inputs)

    def rows() -> Iterator[int]:
        missing = set(jobs)
        for level, shard in shards:
            written = writer.write_shard(level, shard, lambda row: next(computed).numpy())
            yield from (row for row in written if (level, row) in missing)

    patches = [math.prod(writer.plan.grids[level][row]) for level, row in jobs]
    for _ in progress(rows(), label=label, total=len(jobs), unit="views", costs=patches):
        pass
    fabric.barrier()


def _probe(fabric: "Fabric", clip: DenseClip, text: Tensor, params: ClipParams) -> Probe:
    """Probe logits, computed by rank zero for all processes."""
    probe: Probe = {}
    if fabric.global_rank == 0:
        probe = probe_logits(clip.cpu(), text.cpu(), params)
        clip.to(fabric.device)
    return probe if fabric.world_size == 1 else fabric.broadcast(probe)


def _warn_of_other_code(out: Path, changed: dict[str, float]) -> None:
    most = ", ".join(f"{name} by {value:.2g}" for name, value in changed.items())
    what = "the fused level is" if list(changed) == [FUSED] else "all logits are"
    log.warning("%s: its code computes other logits (%s); %s computed again", out, most, what)


def _check_room(plan: Plan, draft: Path, out: Path) -> None:
    """Raise a ValueError if the plan does not fit on the disk, less what the draft holds."""
    needed = {draft: max(0, plan.num_bytes() - bytes_below(draft))}
    if not same_disk(draft, out):
        needed[out] = plan.num_bytes()
    check_room(needed)


def _check_no_part_runs(draft: Path) -> None:
    """Raise a ValueError if a part of the draft is being computed."""
    for file in draft.parent.glob(f".{draft.name}-part-*.lock"):
        with locked(file.with_name(file.name[1:].removesuffix(".lock"))):
            pass


def _previous(path: Path) -> PseudoMaskStore | None:
    """The store of an earlier run, or None if there is none or it is damaged."""
    try:
        return PseudoMaskStore.open(path) if path.exists() else None
    except ValueError as error:
        log.warning("%s; all logits are computed again", error)
        return None
