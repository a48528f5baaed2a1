"""Speed of a training step, relative to a resident batch and to CLIP inside the step."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import islice, repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

import pipeline.training.crops
from bench.authors import MEAN_ZOOM, online_masks
from bench.authors import patch_logits as authors_logits
from bench.timing import Measure, race, ratio
from bench.workload import (
    CITY_CLASSES,
    Street,
    Workload,
    draw_street,
    random_clip,
    random_network,
    store_maker,
)
from pipeline.carb import CarbLoss
from pipeline.clip.dense import DenseClip
from pipeline.config.params import load_params
from pipeline.config.train import TrainParams
from pipeline.segmenter.network import build_segmenter
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.devices import precision_of, start_fabric
from pipeline.training.augment import normalise
from pipeline.training.batch_loss import BatchLoss
from pipeline.training.crops import (
    Batch,
    CropDataset,
    SampledLogits,
    TrainingPhoto,
    make_loader,
)
from pipeline.training.fit import train_step
from pipeline.training.optimizer import make_optimizer
from pipeline.views import Box

if TYPE_CHECKING:
    from lightning_fabric import Fabric

PAPER = Path("recipes/cityscapes.yaml")
PREFETCHED = 4  # batches that a loader process holds ready
IDLE_S = 3  # enough for a loader to fill its queue
PATCH = 16  # pixels


@dataclass(frozen=True)
class Learner:
    """A network with its optimizer and loss."""

    fabric: "Fabric"
    model: nn.Module
    optimizer: Optimizer
    carb: CarbLoss

    def learn(self, batch: Batch) -> None:
        """One update from cached logits, as the pipeline does it."""
        train_step(self.fabric, self.model, self.optimizer, BatchLoss(self.carb), batch)

    def learn_online(
        self, batch: Batch, *, ask: Callable[[Tensor], Tensor], layout: torch.memory_format
    ) -> None:
        """One update with CLIP run on the crops and their windows."""
        images = normalise(batch.images).contiguous(memory_format=layout)
        labels, boxes = batch.image_labels, batch.local_boxes
        with self.fabric.autocast():
            global_mask, local_mask = online_masks(ask, images, boxes, labels, zoom=MEAN_ZOOM)
        terms = self.carb(self.model(images), global_mask, local_mask, boxes, labels)
        self.optimizer.zero_grad(set_to_none=True)
        self.fabric.backward(terms.total)
        self.optimizer.step()


def learner_of(fabric: "Fabric", network: nn.Module, train: TrainParams) -> Learner:
    """A network with the optimizer of ``train``, on the device."""
    network = network.to(fabric.device).train()
    model, optimizer = fabric.setup(network, make_optimizer(network, train))
    carb = CarbLoss(tau=0.0, warmup_steps=0).to(fabric.device)
    return Learner(fabric, model, optimizer, carb)


def loader(work: Workload, folder: Path) -> Iterator[Measure]:
    """Time of a training step with the loader, relative to a step on a resident batch."""
    if work.small:
        small = draw_street(folder / "small", train=max(work.small, 8))
        yield _against_resident(work, "the demo's", small, demo_network(small), random_clip(""))
    height, width = work.crop
    level = {"window": list(work.photo), "overlap": 0.0}
    large = draw_street(
        folder / "large",
        train=work.large,
        size=work.photo,
        recipe=PAPER,
        clip__levels={"global": level | {"zoom": 1.0}, "local": level | {"zoom": 2.0}},
        views__base_size=list(work.photo),
        views__crop=[height, width],
        views__local_window=[height, width // 4],
        train__batch_size=work.batch_size,
        train__workers=min(os.cpu_count() or 1, load_params(PAPER).train.workers),
    )
    classes = len(large.index.label_space.classes)
    network = random_network(work, classes=classes)
    name = f"the paper's recipe, {work.batch_size} crops of {height} x {width}"
    # Images and logits are read at every step, as of large data sets.
    with patch.object(pipeline.training.crops, "KEPT_BYTES", 0):
        measure = _against_resident(work, name, large, network, random_clip(work.clips[0]))
    yield measure


def _against_resident(
    work: Workload, name: str, street: Street, network: nn.Module, clip: DenseClip
) -> Measure:
    params = street.params
    learner = learner_of(start_fabric(params.train.precision), network, params.train)
    batches = iter(loader_of(street, clip, learner.fabric))
    resident = next(batches)

    def learn_all(source: Iterator[Batch], steps: int) -> None:
        for batch in islice(source, steps):
            learner.learn(batch)

    learn_all(repeat(resident), 1)
    work.wait()
    clock = time.perf_counter()
    learn_all(repeat(resident), 1)
    work.wait()
    steps = max(1, round(work.seconds / work.least / (time.perf_counter() - clock)))

    def settle(name: str) -> None:
        if name == "loader":  # of the rate at which it makes batches, not of those made before
            deque(islice(batches, 2 * PREFETCHED * params.train.workers), maxlen=0)
        elif work.seconds:
            time.sleep(IDLE_S)

    times = race(
        {
            "resident": lambda: learn_all(repeat(resident), steps),
            "loader": lambda: learn_all(batches, steps),
        },
        wait=work.wait,
        seconds=2 * work.seconds,
        least=work.least,
        settle=settle,
    )
    return ratio(
        "loader",
        f"time of a training step with the loader, relative to a resident batch: {name}",
        times,
        of="loader",
        to="resident",
        target=1.05,
        details={"steps a round": steps, "workers": params.train.workers}
        | {"precision": precision_of(learner.fabric)},
    )


def demo_network(street: Street) -> nn.Module:
    """The segmenter of params.yaml, with random weights."""
    torch.manual_seed(0)
    wanted = street.params.segmenter
    network = build_segmenter(
        arch=wanted.arch,
        encoder=wanted.encoder,
        num_classes=len(street.index.label_space.classes),
        options=wanted.options,
        text=None,
    )
    return network.to(memory_format=torch.channels_last)


def loader_of(street: Street, clip: DenseClip, fabric: "Fabric") -> "DataLoader[Batch]":
    """Endless batches from a store that was just written."""
    store = PseudoMaskStore.open(store_maker(street, clip)())
    root, params = street.dataset.root, street.params
    crops = CropDataset(
        [
            TrainingPhoto(photo.key, photo.path(root), photo.size, street.labels[photo.key])
            for photo in street.index.photos
        ],
        store,
        global_level=store.global_level,
        local_levels=store.local_levels,
        views=params.views,
        augment=params.augment,
        seed=params.seed,
    )
    size, workers = params.train.batch_size, params.train.workers
    return make_loader(fabric, crops, range(10**5), batch_size=size, workers=workers)


def online(work: Workload, folder: Path) -> Iterator[Measure]:
    """Time of a training step with CLIP inside, relative to one from cached logits."""
    train = load_params(PAPER).train
    fabric, float32 = start_fabric("auto"), start_fabric("32-true")
    clip, batch = random_clip(work.clips[0]).to(fabric.device), _random_batch(work)
    width = clip.patch_features(torch.zeros(1, 3, 64, 64, device=fabric.device)).shape[1]
    text = F.normalize(torch.randn(CITY_CLASSES, width, device=fabric.device), dim=1)
    ours, theirs = (
        learner_of(chosen, random_network(work).to(memory_format=layout), train)
        for chosen, layout in ((fabric, torch.channels_last), (float32, torch.contiguous_format))
    )
    slow = partial(authors_logits, clip, text=text)
    last, first = torch.channels_last, torch.contiguous_format
    times = race(
        {
            "cached": lambda: ours.learn(batch),
            "authors' tower inside": lambda: ours.learn_online(batch, ask=slow, layout=last),
            "authors' step": lambda: theirs.learn_online(batch, ask=slow, layout=first),
        },
        wait=work.wait,
        seconds=4 * work.seconds,
        least=work.least,
    )
    details: dict[str, Any] = {"precision": precision_of(fabric)}
    details |= {"crop": list(work.crop), "photos": work.batch_size}
    for what, other, target in (
        ("a step with CLIP as the authors run it", "authors' tower inside", 1.35),
        ("the authors' step, float32", "authors' step", 2.5),
    ):
        yield ratio(
            "online",
            f"time of {what}, relative to the step from the cache",
            times,
            of=other,
            to="cached",
            target=target,
            at_least=True,
            details=details,
        )


def compiled(work: Workload, folder: Path) -> Iterator[Measure]:
    """Time of a training step of the paper's recipe, relative to one with torch.compile."""
    fabric, train, batch = start_fabric("auto"), load_params(PAPER).train, _random_batch(work)
    networks = [random_network(work) for _ in range(2)]
    networks[1].compile(backend=work.compiler)
    plain, fast = (learner_of(fabric, network, train) for network in networks)
    clock = time.perf_counter()
    fast.learn(batch)
    work.wait()
    compile_s = time.perf_counter() - clock
    times = race(
        {"plain": lambda: plain.learn(batch), "compiled": lambda: fast.learn(batch)},
        wait=work.wait,
        seconds=work.seconds,
        least=work.least,
    )
    yield ratio(
        "compile",
        "time of a training step, relative to one with torch.compile",
        times,
        of="plain",
        to="compiled",
        target=None,
        details={"first step, s": round(compile_s, 1), "precision": precision_of(fabric)},
    )


def _random_batch(work: Workload) -> Batch:
    """A batch of noise on the device, shaped like one of the paper's recipe."""
    torch.manual_seed(0)
    height, width = work.crop
    window, count = Box(0, width // 4, height, width // 4), work.batch_size
    images = torch.randint(0, 256, (count, 3, height, width), dtype=torch.uint8)
    labels = torch.rand(count, CITY_CLASSES) < 0.6
    labels[:, 0] = True

    def cut(grid: tuple[int, int], size: tuple[float, float]) -> SampledLogits:
        rows, columns = (
            torch.linspace(0, g - 1, int(n)).repeat(count, 1)
            for g, n in zip(grid, size, strict=True)
        )
        return SampledLogits(torch.randn(count, CITY_CLASSES, *grid).half(), rows, columns)

    grid = (height // PATCH, width // PATCH)
    local = cut((round(MEAN_ZOOM * grid[0]), round(MEAN_ZOOM * grid[1])), window[2:])
    whole = cut(grid, (height, width))
    batch = Batch(images, labels, whole, local, [window] * count, [""] * count)
    return batch.to(torch.device(work.device))
