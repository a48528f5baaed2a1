"""Stage 2: the segmenter learns from the cached pseudo-masks. Nothing here can find a human
mask."""

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from pipeline.carb import CarbLoss, CarbTerms
from pipeline.config.params import Params
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.distributed import check_same, check_shares, convert_sync_batchnorm
from pipeline.system.progress import progress
from pipeline.system.stop import Interrupted, stop_requested
from pipeline.training.augment import IMAGENET, Normalisation, normalisation_of
from pipeline.training.checkpoint import (
    DamagedError,
    Progress,
    load_checkpoint,
    save_checkpoint,
    seed_step,
)
from pipeline.training.crops import Batch, CropDataset, StepBatchSampler, TrainingPhoto, make_loader
from pipeline.training.losses import loss_of, make_loss
from pipeline.training.non_finite import NonFiniteCheck, check_weights
from pipeline.training.optimizer import learning_rate, make_optimizer, set_lr

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger("carb")
LOG_EVERY = 10
LogStep = Callable[[dict[str, float]], None]
ShowModel = Callable[[int, nn.Module], None]


def train_step(
    fabric: "Fabric",
    model: nn.Module,
    optimizer: Optimizer,
    carb: CarbLoss,
    batch: Batch,
    *,
    dice: float,
    normalisation: Normalisation = IMAGENET,
) -> CarbTerms:
    """One optimiser update on a batch; its terms, see `loss_of`."""
    moved = batch.to(fabric.device)
    terms = loss_of(moved, model, carb, dice=dice, normalisation=normalisation)
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
    run = _Run.start(fabric, model, make_loss(params, store, photos), params, checkpoint)
    for figures in run.done.history:
        log_step(figures)
    start, total, size = run.done.step, params.train.steps, params.train.batch_size
    loader = _loader(fabric, store, photos, params, start=start)
    steps = progress(
        loader, label="train", total=total, done=start, stops=False, unit="steps", images=size
    )
    clock = time.monotonic()
    for step, batch in enumerate(steps, start=start + 1):
        terms, lr = run.learn(batch, step, params)
        if step % LOG_EVERY == 0:  # reading a figure waits for the device
            run.done.history.append(_figures(terms, step, lr))
            rate = LOG_EVERY * size / (time.monotonic() - clock)
            log_step(run.done.history[-1] | {"images_per_s": rate})
            clock = time.monotonic()
        if fabric.global_rank == 0 and step % params.train.preview_every == 0:
            show(step, run.model.eval())
        stop = _all_stop(fabric, step)
        if stop or step % params.train.checkpoint_every == 0:
            run.keep()
        if stop:
            fabric.barrier()  # launchers end all processes when one has ended
            raise Interrupted(f"train {step}/{total}")
    run.check()
    return run.model.eval()


@dataclass(frozen=True)
class _Run:
    """A training run in progress; see `start`.

    Attributes:
        fabric: the devices.
        model: the segmenter.
        wrapped: the same as Fabric trains it.
        optimizer: of its weights.
        carb: the loss.
        done: steps and figures so far.
        watch: looks at each step's loss.
        checkpoint: file to resume from.
    """

    fabric: "Fabric"
    model: nn.Module
    wrapped: nn.Module
    optimizer: Optimizer
    carb: CarbLoss
    done: Progress
    watch: NonFiniteCheck
    checkpoint: Path

    @classmethod
    def start(
        cls,
        fabric: "Fabric",
        model: nn.Module,
        carb: CarbLoss,
        params: Params,
        checkpoint: Path,
    ) -> "_Run":
        """Begin, or go on from the checkpoint; the model is changed in place."""
        model = convert_sync_batchnorm(model, fabric)
        # Before the optimiser is restored: its state goes where the weights are, and Fabric
        # leaves it.
        model = model.to(fabric.device).to(memory_format=torch.channels_last)
        optimizer = make_optimizer(model, params.train)
        done = _restore(fabric, checkpoint, {"model": model, "carb": carb}, optimizer)
        wrapped, optimizer = fabric.setup(model, optimizer)
        carb.to(fabric.device)
        return cls(
            fabric, model, wrapped, optimizer, carb, done, NonFiniteCheck(fabric), checkpoint
        )

    def learn(self, batch: Batch, step: int, params: Params) -> tuple[CarbTerms, float]:
        """One optimiser update; its terms and the learning rate."""
        self.done.step = step
        self.wrapped.train()
        lr = learning_rate(step - 1, params.train)
        set_lr(self.optimizer, lr)
        seed_step(params.seed, step)
        terms = train_step(
            self.fabric,
            self.wrapped,
            self.optimizer,
            self.carb,
            batch,
            dice=params.train.dice,
            normalisation=normalisation_of(params.segmenter.normalisation),
        )
        self.watch.see(terms, step, batch.keys)
        return terms, lr

    def check(self) -> None:
        """Refuse to go on, or to end, with a loss or weights that are no numbers."""
        self.watch.finish()
        check_weights(self.fabric, self.model, self.done.step, lr="train.lr")

    def keep(self) -> None:
        """Write a checkpoint, if all is well."""
        self.check()
        if self.fabric.global_rank == 0:
            modules = {"model": self.model, "carb": self.carb}
            save_checkpoint(
                self.checkpoint, modules=modules, optimizer=self.optimizer, progress=self.done
            )


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
        return stop_requested()
    if step % LOG_EVERY:
        return False
    asked = torch.tensor(float(stop_requested()), device=fabric.device)
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
    crops = CropDataset(
        photos,
        store,
        near=store.near,
        far=store.far if params.train.local_term else [],
        views=params.views,
        augment=params.augment,
        seed=params.seed,
    )
    steps = StepBatchSampler(
        start=start,
        stop=params.train.steps,
        batch_size=params.train.batch_size,
        rank=fabric.global_rank,
        world=fabric.world_size,
    )
    pin = fabric.device.type == "cuda"
    return make_loader(crops, steps, workers=params.train.workers, pin=pin)
