"""Stage 2: the segmenter learns from the cached pseudo-masks. Nothing here can find a human
mask."""

import logging
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from pipeline.augment import normalise
from pipeline.batches import Batch, Crops, Steps, TrainingPhoto, make_loader
from pipeline.carb import CarbLoss, CarbTerms
from pipeline.checkpoints import (
    DamagedError,
    Progress,
    load_checkpoint,
    save_checkpoint,
    seed_step,
)
from pipeline.config import Params
from pipeline.dice import dice_loss
from pipeline.finite import LossWatch, check_weights
from pipeline.label_spaces import IGNORE_INDEX
from pipeline.processes import as_one_process, check_same, check_shares
from pipeline.runtime import progress
from pipeline.schedules import learning_rate, make_optimizer, set_lr
from pipeline.stopping import StoppedError, asked_to_stop
from pipeline.store import PseudoMaskStore
from pipeline.views import Box

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger("carb")
LOG_EVERY = 10
COUNTED_PHOTOS = 20_000  # at most, for the frequency of classes
_NO_WINDOW = Box(0, 0, 1, 1)
LogStep = Callable[[dict[str, float]], None]
ShowModel = Callable[[int, nn.Module], None]


def class_frequency(
    store: PseudoMaskStore, photos: Sequence[TrainingPhoto], levels: Sequence[str]
) -> Tensor:
    """Share of each class in the pseudo-masks of the training photos, ``[C]`` float64.

    Counted on the patch grids: cheap, and as good an estimate. Of more than ``COUNTED_PHOTOS``
    photos every second, third, ... counts: a run on millions starts as soon as one on thousands.
    """
    counts = torch.zeros(len(store.classes), dtype=torch.float64)
    for photo in photos[:: max(1, math.ceil(len(photos) / COUNTED_PHOTOS))]:
        absent = torch.from_numpy(~photo.image_labels)[:, None, None]
        for level in levels:
            logits = torch.from_numpy(store.read(photo.key, level))
            # argmax(dim=0) is several times as slow on a CPU
            classes = logits.masked_fill(absent, -torch.inf).max(dim=0).indices
            counts += torch.bincount(classes.flatten(), minlength=len(counts)) / classes.numel()
    return counts / counts.sum()


def class_weights(frequency: Tensor, power: float) -> Tensor | None:
    """Weight of each class in the loss: frequency to the power ``-power``; None at 0 (paper)."""
    if power == 0:
        return None
    return frequency.clamp_min(1e-4).pow(-power).float()


def make_loss(params: Params, store: PseudoMaskStore, photos: Sequence[TrainingPhoto]) -> CarbLoss:
    """The CARB loss as the parameters say."""
    power = params.train.class_weight_power
    levels = [store.near, *store.far] if params.train.local_term else [store.near]
    frequency = class_frequency(store, photos, levels) if power else torch.ones(1)
    return CarbLoss(
        tau=params.carb.tau,
        warmup_steps=params.carb.warmup_steps if params.carb.enabled else params.train.steps,
        base=params.carb.base,
        queue_size=params.carb.queue_size,
        weight=params.carb.weight,
        class_weights=class_weights(frequency, power),
        floor=params.carb.floor,
    )


def loss_of(batch: Batch, model: nn.Module, carb: CarbLoss, *, dice: float = 0.0) -> CarbTerms:
    """One forward pass: both views' pseudo-masks against the same logits.

    Args:
        batch: what to learn from.
        model: the segmenter.
        carb: the loss.
        dice: weight of the Dice loss of the global view, added to the total.
    """
    with torch.no_grad():
        near = batch.near.hard_masks(batch.image_labels)
        if batch.far is not None:
            far = batch.far.hard_masks(batch.image_labels)
    logits = model(normalise(batch.images))
    if batch.far is None:  # no local view: an empty window, whose terms are 0
        far = near.new_full((len(near), 1, 1), IGNORE_INDEX)
    boxes = batch.local_boxes or [_NO_WINDOW] * len(near)
    terms: CarbTerms = carb(logits, near, far, boxes, batch.image_labels)
    return replace(terms, total=terms.total + dice * dice_loss(logits, near)) if dice else terms


def train_step(
    fabric: "Fabric",
    model: nn.Module,
    optimizer: Optimizer,
    carb: CarbLoss,
    batch: Batch,
    *,
    dice: float,
) -> CarbTerms:
    """One optimiser update on a batch; its terms, see `loss_of`."""
    terms = loss_of(batch.to(fabric.device), model, carb, dice=dice)
    optimizer.zero_grad(set_to_none=True)
    fabric.backward(terms.total)
    optimizer.step()
    return terms


def fit(
    fabric: "Fabric",
    model: nn.Module,
    store: PseudoMaskStore,
    photos: Sequence[TrainingPhoto],
    params: Params,
    *,
    checkpoint: Path,
    log_step: LogStep,
    show: ShowModel,
) -> nn.Module:
    """Train to the end, from the checkpoint if there is one.

    Args:
        fabric: the devices.
        model: segmenter, images ``[B, 3, H, W]`` -> logits ``[B, C, H, W]``.
        store: the pseudo-masks.
        photos: what to learn from.
        params: all parameters.
        checkpoint: file of the state, in a scratch folder of this run alone.
        log_step: told the figures of every tenth step, of a resumed run also the past ones.
        show: given step and model from time to time, to make pictures.

    Returns:
        the trained model, in eval mode.

    Raises:
        ValueError: the loss is not finite; names step, photos and term.
        StoppedError: the run was asked to stop; the checkpoint is of its last step.
    """
    carb = make_loss(params, store, photos)
    model = as_one_process(model, fabric)
    # Before the optimiser is restored: its state goes where the weights are, and Fabric leaves it.
    model = model.to(fabric.device).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, params.train)
    modules: dict[str, nn.Module] = {"model": model, "carb": carb}
    done = _restore(fabric, checkpoint, modules, optimizer)
    for figures in done.history:
        log_step(figures)
    wrapped, optimizer = fabric.setup(model, optimizer)
    carb.to(fabric.device)
    loader = _loader(fabric, store, photos, params, start=done.step)
    steps = progress(
        loader,
        label="train",
        total=params.train.steps,
        done=done.step,
        stops=False,
        unit="steps",
        images=params.train.batch_size,
    )
    watch = LossWatch(fabric)
    clock = time.monotonic()
    for step, batch in enumerate(steps, start=done.step + 1):
        done.step = step
        wrapped.train()
        lr = learning_rate(step - 1, params.train)
        set_lr(optimizer, lr)
        seed_step(params.seed, step)
        terms = train_step(fabric, wrapped, optimizer, carb, batch, dice=params.train.dice)
        watch.see(terms, step, batch.keys)
        if step % LOG_EVERY == 0:  # reading a figure waits for the device
            done.history.append(_figures(terms, step, lr))
            rate = LOG_EVERY * params.train.batch_size / (time.monotonic() - clock)
            log_step(done.history[-1] | {"images_per_s": rate})
            clock = time.monotonic()
        if fabric.global_rank == 0 and step % params.train.preview_every == 0:
            show(step, model.eval())
        stop = _all_stop(fabric, step)
        if stop or step % params.train.checkpoint_every == 0:
            watch.finish()
            check_weights(fabric, model, step, lr="train.lr")
            if fabric.global_rank == 0:
                save_checkpoint(checkpoint, modules=modules, optimizer=optimizer, progress=done)
        if stop:
            fabric.barrier()  # launchers end all processes when one has ended
            raise StoppedError(f"train {step}/{params.train.steps}")
    watch.finish()
    check_weights(fabric, model, params.train.steps, lr="train.lr")
    return model.eval()


def _figures(terms: CarbTerms, step: int, lr: float) -> dict[str, float]:
    """What is logged of a step."""
    figures = {name: float(value.detach()) for name, value in vars(terms).items()}
    return {"step": float(step), **figures, "lr": lr}


def _restore(
    fabric: "Fabric", checkpoint: Path, modules: dict[str, nn.Module], optimizer: Optimizer
) -> Progress:
    """Go on where a checkpoint was written; from the start if there is none, or a damaged one."""
    done = Progress(0, [])
    if checkpoint.is_file():
        try:
            done = load_checkpoint(checkpoint, modules=modules, optimizer=optimizer)
            log.info("resuming after step %d", done.step)
        except DamagedError as error:
            log.warning("%s; training starts anew", error)
    check_same(
        fabric,
        done.step,
        f"{checkpoint} holds step {done.step} here and another one on the first node; all nodes "
        "must share the folder",
    )
    return done


def _all_stop(fabric: "Fabric", step: int) -> bool:
    """Whether the run was asked to stop; processes agree on it, for none can go on alone."""
    if fabric.world_size == 1:
        return asked_to_stop()
    if step % LOG_EVERY:
        return False
    asked = torch.tensor(float(asked_to_stop()), device=fabric.device)
    return bool(fabric.all_reduce(asked, reduce_op="sum"))


def _loader(
    fabric: "Fabric",
    store: PseudoMaskStore,
    photos: Sequence[TrainingPhoto],
    params: Params,
    *,
    start: int,
) -> "DataLoader[Batch]":
    """Batches from step ``start`` on, this process's share of each."""
    check_shares(fabric, params.train.batch_size, "train.batch_size")
    crops = Crops(
        photos,
        store,
        near=store.near,
        far=store.far if params.train.local_term else [],
        views=params.views,
        augment=params.augment,
        seed=params.seed,
    )
    steps = Steps(
        start=start,
        stop=params.train.steps,
        batch_size=params.train.batch_size,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )
    pin = fabric.device.type == "cuda"
    return make_loader(crops, steps, workers=params.train.workers, pin=pin)
