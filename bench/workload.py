"""Workloads of the benchmarks: drawn images, networks with random weights, sizes by device."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import open_clip
import torch
from PIL import Image
from torch import nn

from bench.settings import write_changed
from demo.drawn_dataset import draw_split
from pipeline.clip.build_store import plan_store, write_store
from pipeline.clip.dense import DenseClip, load_clip
from pipeline.config.params import Params, load_params
from pipeline.datasets import open_dataset
from pipeline.datasets.base import Dataset
from pipeline.datasets.collect import collect_image_labels, index_scenes
from pipeline.scenes.image_labels import ImageLabels
from pipeline.scenes.index import SceneIndex
from pipeline.segmenter.network import build_segmenter
from pipeline.store.plan import Plan
from pipeline.system.devices import start_fabric
from pipeline.system.files import remove

if TYPE_CHECKING:
    from lightning_fabric import Fabric

GRAIN = 6.0  # of 256: camera noise, without which enlarged drawings compress too well
CITY_CLASSES = 19


@dataclass(frozen=True)
class Workload:
    """Sizes for one device.

    Attributes:
        device: ``cpu`` or ``cuda``.
        seconds: time for the rounds of one race; 0: smoke test.
        least: minimum number of rounds of a race.
        small: number of images as the demo draws them; 0: only the large ones.
        large: number of large images.
        clips: open_clip names of large CLIPs, with random weights; the first is used throughout.
        encoder: of the large segmenter, a DeepLabV3.
        photo: ``(height, width)`` of large images, pixels.
        crop: crop of the large segmenter's training; the local window is a quarter of it.
        batch_size: of the large segmenter's training.
        product: rows and columns of the matrices whose product measures the peak.
        compiler: backend of torch.compile.
    """

    device: str
    seconds: float
    least: int
    small: int
    large: int
    clips: tuple[str, ...]
    encoder: str
    photo: tuple[int, int]
    crop: tuple[int, int]
    batch_size: int
    product: int
    compiler: str = "inductor"

    def wait(self) -> None:
        """Wait for the device."""
        if self.device == "cuda":
            torch.cuda.synchronize()

    def quick(self) -> Self:
        """The large images only, fewer of them, and shorter races."""
        return replace(
            self,
            seconds=self.seconds / 3,
            least=min(self.least, 3),
            small=0,
            large=min(self.large, 4),
            clips=self.clips[:1],
        )


BASE_CLIP, LARGE_CLIP = "ViT-B-16-quickgelu", "ViT-L-14-quickgelu"
CPU = Workload("cpu", 20, 5, 24, 2, (BASE_CLIP,), "resnet50", (512, 1024), (256, 512), 2, 1024)
CUDA = Workload(
    *("cuda", 30, 5, 96, 8, (BASE_CLIP, LARGE_CLIP)),
    *("resnet50", (1024, 2048), (512, 1024), 8, 8192),
)
# For tests: torch.compile only traces.
SMOKE = Workload("cpu", 0, 1, 3, 2, ("",), "resnet18", (64, 128), (64, 128), 2, 32, "eager")


@dataclass(frozen=True)
class Street:
    """A drawn data set, indexed, with its image-level labels."""

    folder: Path
    params: Params
    dataset: Dataset
    index: SceneIndex
    labels: ImageLabels


def draw_street(
    folder: Path,
    *,
    train: int,
    val: int = 0,
    size: tuple[int, int] | None = None,
    recipe: Path = Path("params.yaml"),
    **changes: Any,
) -> Street:
    """Draw a data set as the demo does, and index it.

    Args:
        folder: folder of the data set and its parameters.
        train: number of training images.
        val: number of validation images.
        size: ``(height, width)`` that images and masks are enlarged to; None: as drawn.
        recipe: parameter file to start from.
        changes: of its parameters; ``__`` means a dot.
    """
    root = folder / "photos"
    draw_split(root, "train", seed=0, count=train)
    if val:
        draw_split(root, "val", seed=1, count=val)
    if size is not None:
        for number, path in enumerate(sorted(root.rglob("*.png"))):
            _enlarge(path, size, number)
    named = {"dataset.root": str(root)}
    named |= {name.replace("__", "."): value for name, value in changes.items()}
    write_changed(recipe, folder / "params.yaml", named)
    params = load_params(folder / "params.yaml")
    dataset = open_dataset("demo", str(root))
    scenes = [
        scene
        for split in ("train", "val")
        if (root / split).is_dir()
        for scene in dataset.scenes(split)
    ]
    labels = collect_image_labels(scenes, dataset, params.dataset)
    return Street(folder, params, dataset, index_scenes(dataset, scenes), labels)


def _enlarge(path: Path, size: tuple[int, int], seed: int) -> None:
    with Image.open(path) as picture:
        nearest = picture.mode == "P"
        how = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
        large = picture.resize((size[1], size[0]), how)
    if not nearest:
        pixels = np.asarray(large) + np.random.default_rng(seed).normal(0, GRAIN, (*size, 1))
        large = Image.fromarray(pixels.clip(0, 255).astype(np.uint8))
    large.save(path)


def random_clip(name: str) -> DenseClip:
    """A CLIP with random weights; for an empty name the demo's trained CLIP."""
    if not name:
        return load_clip("local-dir:demo/clip", None)
    torch.manual_seed(0)
    model = open_clip.create_model(name)
    config = open_clip.get_model_config(name)
    return DenseClip(model, open_clip.get_tokenizer(name), name=name, config=config)


def random_network(work: Workload, *, classes: int = CITY_CLASSES) -> nn.Module:
    """A DeepLabV3 of the paper's shape with random weights."""
    torch.manual_seed(0)
    model = build_segmenter(
        arch="deeplabv3",
        encoder=work.encoder,
        num_classes=classes,
        options={"encoder_output_stride": 8},
        text=None,
    )
    return model.eval().to(work.device).to(memory_format=torch.channels_last)


@dataclass
class StoreMaker:
    """Runs the stage `pseudo` repeatedly into new folders, with CLIP and texts already loaded."""

    fabric: "Fabric"
    clip: DenseClip
    text: torch.Tensor
    plan: Plan
    street: Street
    drafts: Iterator[Path]

    def __call__(self) -> Path:
        """Write a store and return its path."""
        return write_store(
            self.fabric,
            self.clip,
            self.text,
            self.plan,
            paths=[photo.path(self.street.dataset.root) for photo in self.street.index.photos],
            params=self.street.params.clip,
            draft=next(self.drafts),
            previous=None,
        )

    def remove(self, store: Path) -> None:
        """Remove a written store."""
        remove(store.parent)


def store_maker(street: Street, clip: DenseClip) -> StoreMaker:
    """Load what the stage `pseudo` needs, with one sentence per class."""
    fabric, space = start_fabric(street.params.clip.precision), street.index.label_space
    clip.to(fabric.device)
    words, templates = space.words({}), ["a photo of a {}."]
    plan = plan_store(
        street.index,
        clip,
        params=street.params.clip,
        templates=templates,
        precision=str(fabric.strategy.precision.precision),
    )
    drafts = (street.folder / f"draft-{number}" for number in itertools.count())
    return StoreMaker(fabric, clip, clip.embed_text(words, templates), plan, street, drafts)
