"""Training loop: the segmenter learns from cached pseudo-masks and resumes from a checkpoint."""

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.optim import Optimizer

from pipeline.carb import CarbTerms
from pipeline.config.train import TrainParams
from pipeline.system.distributed import check_same, check_shares, convert_sync_batchnorm
from pipeline.system.progress import progress
from pipeline.system.stop import Interrupted, stop_requested
from pipeline.system.waiting import share_cores
from pipeline.training.batch_loss import BatchLoss
from pipeline.training.checkpoint import (
    DamagedError,
    Progress,
    load_checkpoint,
    save_checkpoint,
    seed_step,
)
from pipeline.training.crops import Batch, CropDataset, make_loader
from pipeline.training.non_finite import NonFiniteCheck, check_weights
from pipeline.training.optimizer import learning_rate, make_optimizer, set_lr

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger("carb")
LOG_EVERY = 10
LogStep = Callable[[dict[str, float]], None]
Preview = Callable[[int, nn.Module], None]


def train_step(
    fabric: "Fabric",
    model: nn.Module,
    optimizer: Optimizer,
    loss: BatchLoss,
    batch: Batch,
) -> CarbTerms:
    """One optimiser update on a batch; returns the terms of its loss."""
    terms = loss(batch.to(fabric.device), model)
    optimizer.zero_grad(set_to_none=True)
    fabric.backward(terms.total)
    optimizer.step()
    return terms


def fit(
    fabric: "Fabric",
    model: nn.Module,
    loss: BatchLoss,
    crops: CropDataset,
    train: TrainParams,
    *,
    checkpoint: Path,
    log_step: LogStep,
    preview: Preview,
    snapshot: Preview = lambda step, model: None,
) -> nn.Module:
    """Train to the end, from the checkpoint if there is one; returns the model in eval mode.

    Args:
        fabric: the devices.
        model: segmenter, images ``[B, 3, H, W]`` -> logits ``[B, C, H, W]``; changed in place.
        loss: from `make_loss`.
        crops: the training data, with the seed of the run.
        train: steps, batch size, optimiser and intervals.
        checkpoint: file of the training state, in a scratch folder of this run alone.
        log_step: called on rank zero with the metrics of every tenth step, including those before
            the checkpoint.
        preview: called on rank zero with step and model every ``train.preview_every`` steps.
        snapshot: likewise, after each of ``train.snapshot_steps``.

    Raises:
        ValueError: the loss is not finite; names step, images and terms.
        Interrupted: the run was asked to stop; the checkpoint is of its last step.
    """
    check_shares(fabric, train.batch_size, "train.batch_size")
    if fabric.device.type == "cpu":
        share_cores()
    run = _Run.start(fabric, model, loss, train, checkpoint)
    rank_zero, clock = fabric.global_rank == 0, time.monotonic()
    for metrics in run.done.history if rank_zero else []:
        log_step(metrics)
    for step, batch in enumerate(_batches(run, crops), start=run.done.step + 1):
        terms, lr = run.update(batch, step, seed=crops.seed)
        if step % LOG_EVERY == 0:  # reading a metric waits for the device
            run.done.history.append(_metrics(terms, step, lr))
            rate = LOG_EVERY * train.batch_size / (time.monotonic() - clock)
            if rank_zero:
                log_step(run.done.history[-1] | {"images_per_s": rate})
            clock = time.monotonic()
        if rank_zero and step % train.preview_every == 0:
            preview(step, run.model.eval())
        if rank_zero and step in train.snapshot_steps:
            snapshot(step, run.model.eval())
        stop = _all_stop(fabric, step)
        if stop or step % train.checkpoint_every == 0:
            run.save()
        if stop:
            fabric.barrier()  # launchers end all processes when one has ended
            raise Interrupted(f"train {step}/{train.steps}")
    run.check()
    return run.model.eval()


@dataclass(frozen=True)
class _Run:
    """State of a training run; ``wrapped`` is the model as Fabric trains it."""

    fabric: "Fabric"
    model: nn.Module
    wrapped: nn.Module
    optimizer: Optimizer
    loss: BatchLoss
    train: TrainParams
    done: Progress
    finite: NonFiniteCheck
    checkpoint: Path

    @classmethod
    def start(
        cls,
        fabric: "Fabric",
        model: nn.Module,
        loss: BatchLoss,
        train: TrainParams,
        checkpoint: Path,
    ) -> "_Run":
        """Begin, or resume from the checkpoint; the model is changed in place."""
        model = convert_sync_batchnorm(model, fabric)
        # To the device first: the optimiser's restored state goes where the weights are, and
        # Fabric does not move it.
        model = model.to(fabric.device).to(memory_format=torch.channels_last)
        optimizer = make_optimizer(model, train)
        done = _restore(fabric, checkpoint, {"model": model, **loss.modules}, optimizer)
        wrapped, optimizer = fabric.setup(model, optimizer)
        loss = loss.to(fabric.device)
        finite = NonFiniteCheck(fabric)
        return cls(fabric, model, wrapped, optimizer, loss, train, done, finite, checkpoint)

    def update(self, batch: Batch, step: int, *, seed: int) -> tuple[CarbTerms, float]:
        """One optimiser update; the terms of its loss and the learning rate."""
        self.done.step = step
        self.wrapped.train()
        lr = learning_rate(step - 1, self.train)
        set_lr(self.optimizer, lr)
        seed_step(seed, step, self.fabric.global_rank)
        terms = train_step(self.fabric, self.wrapped, self.optimizer, self.loss, batch)
        self.finite.observe(terms, step, batch.keys)
        return terms, lr

    def check(self) -> None:
        """Raise ValueError if the loss or the weights are not finite."""
        self.finite.finish()
        check_weights(self.fabric, self.model, self.done.step, lr="train.lr")

    def save(self) -> None:
        """Write a checkpoint, if loss and weights are finite."""
        self.check()
        if self.fabric.global_rank == 0:
            modules = {"model": self.model, **self.loss.modules}
            save_checkpoint(
                self.checkpoint, modules=modules, optimizer=self.optimizer, progress=self.done
            )


def _batches(run: _Run, crops: CropDataset) -> Iterator[Batch]:
    """The batches of the steps that are left, with progress."""
    train, start = run.train, run.done.step
    size, steps = train.batch_size, range(start, train.steps)
    return progress(
        make_loader(run.fabric, crops, steps, batch_size=size, workers=train.workers),
        label="train",
        total=train.steps,
        done=start,
        stops=False,
        unit="steps",
        images=size,
        details=lambda: _in_words(run.done.history),
    )


def _metrics(terms: CarbTerms, step: int, lr: float) -> dict[str, float]:
    """What is logged of a step."""
    values = {name: float(value.detach()) for name, value in vars(terms).items()}
    return {"step": float(step), **values, "lr": lr}


def _in_words(history: list[dict[str, float]]) -> str:
    """The last logged step for the progress line; empty before the first."""
    if not history:
        return ""
    last = history[-1]
    return (
        f"loss {last['total']:.3g}, lambda {last['weight']:.2g}, "
        f"reliable {100 * last['reliable_fraction']:.0f} %, lr {last['lr']:.2g}"
    )


def _restore(
    fabric: "Fabric", checkpoint: Path, modules: dict[str, nn.Module], optimizer: Optimizer
) -> Progress:
    """Load the checkpoint; start from step 0 without one, or with a damaged one."""
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
        f"{checkpoint}: step {done.step} on this node, another one on the first node; all nodes "
        "must share the folder",
    )
    return done


def _all_stop(fabric: "Fabric", step: int) -> bool:
    """Whether the run was asked to stop; all processes get the same answer."""
    if fabric.world_size == 1:
        return stop_requested()
    if step % LOG_EVERY:
        return False
    asked = torch.tensor(float(stop_requested()), device=fabric.device)
    return bool(fabric.all_reduce(asked, reduce_op="sum"))
