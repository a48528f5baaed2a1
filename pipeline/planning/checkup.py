"""`carb doctor`: is all that a run needs at hand here, and how long and large will it be?"""

import os
import platform
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from pipeline.config.clip import check_knows_photos
from pipeline.config.params import Params
from pipeline.datasets import open_dataset
from pipeline.datasets.base import Scene
from pipeline.datasets.collect import given_image_labels, used_scenes
from pipeline.planning.forecast import Measured, clip_for_timing, measure_clip, store_bytes
from pipeline.planning.forecast_training import measure_step
from pipeline.planning.needs import needs_of
from pipeline.planning.survey import sample_sizes, this_machine
from pipeline.system.devices import pick_precision, start_fabric
from pipeline.system.files import bytes_text
from pipeline.system.progress import duration_text

if TYPE_CHECKING:
    from lightning_fabric import Fabric

BUSY = 0.5  # load of the last minute: programs that used a core, on average
PACKAGES = ("carb-wsss", "torch", "open_clip_torch", "timm", "segmentation-models-pytorch", "dvc")


@dataclass(frozen=True)
class Photos:
    """The photos of a run.

    Attributes:
        counts: photos by split.
        sizes: ``(height, width)`` of some of them.
        example: file of one.
        classes: number of classes.
    """

    counts: dict[str, int]
    sizes: Sequence[tuple[int, int]]
    example: Path
    classes: int

    @property
    def total(self) -> int:
        """All photos."""
        return sum(self.counts.values())


@dataclass
class Checkup:
    """What was found: lines by topic, and why the run cannot start."""

    lines: list[tuple[str, str]] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)

    def add(self, topic: str, text: str) -> None:
        """Add a line."""
        self.lines.append((topic, text))


def photos_of(params: Params) -> Photos:
    """Look at the data set of a run.

    Raises:
        ValueError: it is not there, or has no labels and no masks to simulate them.
    """
    dataset = open_dataset(params.dataset.name, params.dataset.root)
    scenes = used_scenes(dataset)
    given_image_labels(scenes, dataset, params.dataset)
    return summary_of(scenes, classes=len(dataset.label_space.classes))


def summary_of(scenes: Sequence[Scene], *, classes: int) -> Photos:
    """Number and sizes of photos."""
    counts = dict(Counter(scene.split for scene in scenes))
    return Photos(counts, sample_sizes(scenes), scenes[0].image, classes)


def describe_machine(found: Checkup, params: Params) -> None:
    """Versions, processor, memory and precision."""
    python = f"Python {platform.python_version()}"
    found.add("versions", ", ".join([python, *(f"{name} {version(name)}" for name in PACKAGES)]))
    machine, memory = this_machine(), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    gpu = f"{machine.gpu}, {bytes_text(machine.gpu_bytes)}" if machine.gpu else "no GPU"
    cores = f"{machine.cores} CPU cores, {torch.get_num_threads()} used by torch"
    found.add("machine", f"{cores}, {bytes_text(memory)} memory, {gpu}")
    load = os.getloadavg()[0]
    if load > BUSY:
        found.add("load", f"{load:.1f} cores were in use: on an idle machine a run takes less time")
    device = "cuda" if machine.gpu else "cpu"
    wanted = {"clip": params.clip.precision, "train": params.train.precision}
    picked = [f"{name} {pick_precision(value, device)}" for name, value in wanted.items()]
    found.add("precision", ", ".join(picked))


def describe_needs(found: Checkup, params: Params) -> None:
    """Which weights are at hand."""
    try:
        check_knows_photos(params.clip, params.dataset.name)
        needs = needs_of(params)
    except ValueError as error:
        found.faults.append(str(error))
        return
    for need in needs:
        missing = need.missing()
        state = f"missing: {', '.join(missing)}" if missing else bytes_text(need.num_bytes())
        found.add("weights", f"{need.what}: {state if missing else f'at hand, {state}'}")
        if missing:
            action = "run `carb fetch`" if need.files else "correct the path"
            found.faults.append(f"params.yaml: {need.parameter}: {missing[0]} is missing; {action}")


def describe_run(found: Checkup, params: Params, photos: Photos, data: Path) -> None:
    """Size of the store, and measured times and memory of `pseudo`, `relabel` and `train`.

    Args:
        found: gets the lines.
        params: of the run.
        photos: of the run.
        data: folder of the store.
    """
    counts = ", ".join(f"{count} {split}" for split, count in photos.counts.items())
    heights, widths = zip(*photos.sizes, strict=True)
    size = f"up to {max(widths)}x{max(heights)}" if len({*photos.sizes}) > 1 else ""
    size = size or f"{widths[0]}x{heights[0]}"
    found.add("photos", f"{counts} of {size}, {photos.classes} classes")
    try:
        clip = clip_for_timing(params.clip)
    except ValueError as error:
        found.add("times", "not measured without CLIP")
        found.faults += [] if found.faults else [str(error)]
        return
    need = store_bytes(photos.sizes, photos.total, photos.classes, params.clip, clip.patch_size)
    free = shutil.disk_usage(next(p for p in (data, *data.absolute().parents) if p.is_dir())).free
    copies = "before compression; DVC's cache holds a second copy unless it links"
    found.add("disk", f"store of {bytes_text(need)} {copies}; {bytes_text(free)} free")
    if need > free:
        found.faults.append(f"{data}: {bytes_text(need)} needed, {bytes_text(free)} free")
    fabric = start_fabric(params.clip.precision)
    photo = measure_clip(fabric, clip, params.clip, photos.example, photos.classes)
    total = duration_text(photo.seconds * photos.total)
    each = f"{photos.total} photos of {duration_text(photo.seconds)}"
    found.add("pseudo", f"about {total}{_memory(photo)}: {each}, measured on {photo.how}")
    width, patch_size = int(clip.config["embed_dim"]), clip.patch_size
    del clip  # training does without it; its memory is not counted
    _describe_training(found, params, photos, patch_size=patch_size, text_width=width)


def _describe_training(
    found: Checkup, params: Params, photos: Photos, *, patch_size: int, text_width: int
) -> None:
    fabric: Fabric = start_fabric(params.train.precision)
    try:
        step = measure_step(
            fabric,
            params,
            photos.example,
            classes=photos.classes,
            patch_size=patch_size,
            text_width=text_width,
        )
    except ValueError as error:
        found.faults.append(str(error))
        return
    relabel, steps = params.relabel, params.train.steps
    if more := relabel.rounds * relabel.folds * relabel.steps:
        each = f"{relabel.rounds} x {relabel.folds} trainings of {relabel.steps} steps"
        total = duration_text(step.seconds * more)
        found.add("relabel", f"about {total}{_memory(step)}: {each}")
    total, each = duration_text(step.seconds * steps), duration_text(step.seconds)
    text = f"about {total}{_memory(step)}: {steps} steps of {each}, measured: {step.how}"
    found.add("train", text)
    if fabric.device.type == "cuda":
        found.add("GPU memory", f"{bytes_text(torch.cuda.max_memory_allocated())} in such a step")


def _memory(measured: Measured) -> str:
    return f", {bytes_text(measured.memory)} memory" if measured.memory else ""


def print_checkup(found: Checkup) -> None:
    """Print the lines, and whether the run can start."""
    width = max(len(topic) for topic, _ in found.lines) + 2
    for topic, text in found.lines:
        print(f"{topic:{width}}{text}")
    for fault in found.faults:
        print(f"not ready: {fault}")
    if not found.faults:
        print("ready: dvc repro")
