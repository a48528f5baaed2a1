"""What a user's folder of photos contains, and the machine: the facts that a plan is made from."""

import os
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config.dataset import DatasetParams
from pipeline.datasets import open_dataset
from pipeline.datasets.base import Scene
from pipeline.datasets.collect import given_image_labels, log_remarks
from pipeline.datasets.folder import find_classes, find_labels, find_scenes
from pipeline.scenes.image_io import upright_size
from pipeline.system.text import Faults

SAMPLE = 200  # photos whose size is read, spread over the folder: headers of 100 000 take minutes


@dataclass(frozen=True)
class Survey:
    """A folder of photos.

    Attributes:
        root: the folder.
        counts: number of photos by split.
        masks: number of human masks by split.
        sizes: ``(height, width)`` of some photos, upright, in pixels.
        classes: class names, or None if there is no list.
        labelled: number of training photos with image-level labels; None without a file of them.
    """

    root: Path
    counts: dict[str, int]
    masks: dict[str, int]
    sizes: list[tuple[int, int]]
    classes: list[str] | None
    labelled: int | None

    @property
    def size(self) -> tuple[int, int]:
        """The median height and width."""
        height, width = (int(statistics.median(sides)) for sides in zip(*self.sizes, strict=True))
        return height, width

    @property
    def has_labels(self) -> bool:
        """Whether image-level labels are given, or can be simulated from masks."""
        return self.labelled is not None or self.masks.get("train", 0) > 0

    def sentence(self) -> str:
        """The folder in one line."""
        photos = ", ".join(f"{count} {split}" for split, count in self.counts.items())
        masks = ", ".join(f"{count} {split}" for split, count in self.masks.items() if count)
        (least_y, least_x), (most_y, most_x) = min(self.sizes), max(self.sizes)
        size = f"{self.size[1]}x{self.size[0]}"
        if least_y != most_y or least_x != most_x:
            size += f" (median; {least_x}x{least_y} to {most_x}x{most_y})"
        return f"{self.root}: {photos} photos of {size}; masks: {masks or 'none'}"


@dataclass(frozen=True)
class Machine:
    """A machine: CPU cores of this process, and the first GPU with its memory in bytes, if any."""

    cores: int
    gpu: str | None
    gpu_bytes: int

    def sentence(self) -> str:
        """The machine in one line."""
        gpu = f"{self.gpu} with {self.gpu_bytes / 1e9:.0f} GB" if self.gpu else "no GPU"
        return f"this machine: {self.cores} CPU cores, {gpu}"


def this_machine() -> Machine:
    """The cores that this process may use, and the first GPU that torch can use."""
    import torch

    allowed = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))
    cores = len(allowed(0))
    if not torch.cuda.is_available():
        return Machine(cores, None, 0)
    about = torch.cuda.get_device_properties(0)
    return Machine(cores, about.name, about.total_memory)


def survey_folder(root: Path) -> Survey:
    """Look at a folder of photos: layout, sizes, masks, classes and labels.

    Logs what in it is not read.

    Raises:
        ValueError: the folder, its classes or its labels cannot be used.
    """
    if not root.is_dir():
        found = "a file" if root.exists() else "no such folder"
        raise ValueError(f"{root}: {found}; name the folder that contains your photos")
    classes, labelled = None, None
    if find_classes(root) is None:
        scenes = find_scenes(root)
    else:
        dataset = open_dataset("folder", root)
        scenes = [scene for split in dataset.splits for scene in dataset.scenes(split)]
        log_remarks(dataset, scenes)
        classes = dataset.label_space.names
        if find_labels(root) is not None:
            params = DatasetParams(name="folder", root=str(root), image_labels=None, min_pixels=1)
            labels = given_image_labels(scenes, dataset, params) or {}
            labelled = sum(key.startswith("train/") for key in labels)
    return Survey(
        root=root,
        counts=dict(Counter(scene.split for scene in scenes)),
        masks=dict(Counter(scene.split for scene in scenes if scene.mask is not None)),
        sizes=sample_sizes(scenes),
        classes=classes,
        labelled=labelled,
    )


def sample_sizes(scenes: Sequence[Scene]) -> list[tuple[int, int]]:
    """The upright sizes of at most ``SAMPLE`` photos, evenly spread.

    Raises:
        ValueError: photos are unreadable; the message names them.
    """
    faults, sizes = Faults("photos"), []
    for scene in scenes[:: -(-len(scenes) // SAMPLE)]:
        with faults.collected():
            sizes.append(upright_size(scene.image))
    faults.check()
    return sizes
