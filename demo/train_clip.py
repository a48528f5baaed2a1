"""Training of the demo's small CLIP on crops and captions of drawn scenes; an hour on two cores.

Writes an open_clip model folder (``local-dir:<out>``). Checkpoints are in ``<out>.partial``;
the same command resumes an interrupted run.
"""

import copy
import dataclasses
import math
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
import torch.nn.functional as F
import typer
from open_clip.model import CLIP
from torch import Tensor, nn
from torch.utils.data import DataLoader

from demo.captions import Vocabulary
from demo.crops import Batch, CropBatches, ScenePool, draw_pool
from demo.tiny_clip import (
    ADAMW_LR,
    IMAGE_SIZE,
    MUON_LR,
    build_clip,
    build_optimizers,
    contrastive_loss,
    encode_text,
    save_clip,
)
from pipeline.system.command import command, log
from pipeline.system.files import atomic_path, remove
from pipeline.system.outputs import outputs

WARMUP_STEPS = 100
EMA_DECAY = 0.995
NUM_WHITENING_CROPS = 512
MAX_LOGIT_SCALE = 100.0  # as in CLIP (arXiv 2103.00020, section 2.5)
CHECKPOINT_EVERY_S = 180.0
REPORT_EVERY_STEPS = 50


@dataclass(frozen=True)
class Recipe:
    """Settings of a run; a checkpoint can be resumed only with equal settings."""

    steps: int
    batch_size: int
    num_scenes: int
    seed: int


@dataclass
class Training:
    """Mutable state of the training."""

    model: CLIP
    average: CLIP  # exponential moving average of the weights; this one is saved
    optimizers: list[torch.optim.Optimizer]
    step: int = 0

    def state(self) -> dict[str, Any]:
        """The full state, as tensors, numbers and containers of them."""
        return {
            "step": self.step,
            "model": self.model.state_dict(),
            "average": self.average.state_dict(),
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Restore a state."""
        self.step = state["step"]
        self.model.load_state_dict(state["model"])
        self.average.load_state_dict(state["average"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)


def start_training(pool: ScenePool, vocabulary: Vocabulary, *, seed: int) -> Training:
    """Initial weights, with the first layer whitened on crops."""
    torch.manual_seed(seed)
    first = CropBatches(
        pool, vocabulary, batch_size=NUM_WHITENING_CROPS, size=IMAGE_SIZE, seed=seed
    )
    model = build_clip(len(vocabulary), first[0].images)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    return Training(model, average, build_optimizers(model))


def lr_factor(step: int, *, steps: int) -> float:
    """Factor of the peak learning rate: linear warm-up, then a cosine from 1 to 0.01."""
    warmup = min(1.0, (step + 1) / WARMUP_STEPS)
    return warmup * (0.01 + 0.99 * 0.5 * (1 + math.cos(math.pi * step / steps)))


def train_step(
    training: Training, encode_image: Callable[[Tensor], Tensor], batch: Batch, *, factor: float
) -> tuple[float, float]:
    """One update of the model and of its average.

    Args:
        training: changed in place.
        encode_image: the image tower of ``training.model``, compiled or not.
        batch: crops and captions.
        factor: of each optimizer's peak learning rate.

    Returns:
        The loss and its excess over the lowest possible.
    """
    model = training.model
    # Float32: compiled bfloat16 was no faster on a CPU without AMX, and torch 2.15's compiled
    # backward pass gave NaN there.
    images = F.normalize(encode_image(batch.images), dim=-1)
    texts = F.normalize(encode_text(model, batch.tokens), dim=-1)[batch.caption_of]
    loss, excess = contrastive_loss(images, texts, model.logit_scale.exp(), batch.mentioned)
    if not loss.isfinite():
        raise ValueError(f"the loss must stay finite, got {loss.item()} at step {training.step}")
    model.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer, peak in zip(training.optimizers, (ADAMW_LR, MUON_LR), strict=True):
        for group in optimizer.param_groups:
            group["lr"] = peak * factor
        optimizer.step()
    _update_average(training)
    training.step += 1
    return loss.item(), excess.item()


@torch.no_grad()
def _update_average(training: Training) -> None:
    training.model.logit_scale.clamp_(0, math.log(MAX_LOGIT_SCALE))
    decay = min(EMA_DECAY, (training.step + 1) / (training.step + 10))
    pairs = zip(training.average.parameters(), training.model.parameters(), strict=True)
    for average, parameter in pairs:
        average.lerp_(parameter, 1 - decay)


def save_checkpoint(path: Path, training: Training, recipe: Recipe) -> None:
    """Write the checkpoint."""
    with atomic_path(path) as draft:
        torch.save({"recipe": dataclasses.asdict(recipe)} | training.state(), draft)


def load_checkpoint(path: Path, training: Training, recipe: Recipe) -> None:
    """Resume from a checkpoint.

    Raises:
        ValueError: it was written with other settings.
    """
    state = torch.load(path, weights_only=True)
    wanted = dataclasses.asdict(recipe)
    if state["recipe"] != wanted:
        raise ValueError(
            f"{path}: written with {state['recipe']}, not {wanted}; "
            f"remove {path.parent} to start again"
        )
    training.load_state(state)


def load_batches(batches: CropBatches, *, start: int, stop: int) -> Iterable[Batch]:
    """Batches of steps ``start`` to ``stop - 1``, made by one worker process."""
    return DataLoader(
        batches, batch_size=None, sampler=range(start, stop), num_workers=1, prefetch_factor=4
    )


def fit(
    training: Training, batches: Iterable[Batch], recipe: Recipe, *, scratch: Path, compiled: bool
) -> None:
    """Train one step per batch, with progress lines and checkpoints.

    Args:
        training: changed in place; ``batches`` start at its step.
        batches: crops and captions, one batch per step.
        recipe: settings of the run.
        scratch: folder of the checkpoint, ``state.pt``.
        compiled: compile the image tower; worthwhile from a few hundred steps on.
    """
    visual = training.model.visual
    encode_image = torch.compile(visual) if compiled else visual
    first, started, saved = training.step, time.monotonic(), time.monotonic()
    losses: list[tuple[float, float]] = []
    for batch in batches:
        factor = lr_factor(training.step, steps=recipe.steps)
        losses.append(train_step(training, encode_image, batch, factor=factor))
        now = time.monotonic()
        if training.step == first + 1:
            started = now  # the first step compiles
        elif training.step in (10, 30) or training.step % REPORT_EVERY_STEPS == 0:
            step_s = (now - started) / (training.step - first - 1)
            left_min = step_s * (recipe.steps - training.step) / 60
            loss, excess = (sum(column) / len(losses) for column in zip(*losses, strict=True))
            log.info(
                f"step {training.step}/{recipe.steps} loss {loss:.3f} excess {excess:.3f} "
                f"lr x{factor:.3f} {step_s:.3f} s/step, {left_min:.1f} min left"
            )
            losses.clear()
        if now - saved > CHECKPOINT_EVERY_S:
            save_checkpoint(scratch / "state.pt", training, recipe)
            saved = now


@command
def train_clip(out: Path, recipe: Recipe, *, threads: int, compiled: bool) -> None:
    """Draw the scenes, train, and write the model folder ``out``."""
    written = outputs("train_clip", folders={"--out": out})
    started = time.monotonic()
    pool = draw_pool(recipe.num_scenes, seed=recipe.seed, processes=threads)
    log.info(f"{recipe.num_scenes} scenes drawn in {time.monotonic() - started:.0f} s")
    torch.set_num_threads(threads)
    vocabulary = Vocabulary()
    training = start_training(pool, vocabulary, seed=recipe.seed)
    scratch = out.with_name(f"{out.name}.partial")
    if (scratch / "state.pt").exists():
        load_checkpoint(scratch / "state.pt", training, recipe)
    log.info(f"step {training.step}/{recipe.steps}, {len(vocabulary)} tokens in use")
    batches = CropBatches(
        pool, vocabulary, batch_size=recipe.batch_size, size=IMAGE_SIZE, seed=recipe.seed
    )
    loader = load_batches(batches, start=training.step, stop=recipe.steps)
    fit(training, loader, recipe, scratch=scratch, compiled=compiled)
    with written:
        save_clip(out, training.average, vocabulary.token_ids)
    remove(scratch / "state.pt")
    with suppress(OSError):  # it holds other files
        scratch.rmdir()
    log.info(f"wrote {out} after {(time.monotonic() - started) / 60:.1f} min")


def main(
    out: Annotated[Path, typer.Option(help="Folder of the model to write.")],
    steps: Annotated[int, typer.Option(min=1, help="Optimizer updates.")] = 6000,
    batch: Annotated[int, typer.Option(min=2, help="Crops per step.")] = 128,
    scenes: Annotated[int, typer.Option(min=1, help="Scenes to crop from.")] = 4000,
    seed: Annotated[int, typer.Option(min=0, help="Seed of scenes, crops and weights.")] = 0,
    threads: Annotated[int, typer.Option(min=1, help="CPU threads.")] = 2,
    compiled: Annotated[bool, typer.Option(help="Compile the image tower.")] = True,
) -> None:
    """Train the demo's small CLIP; the same command resumes an interrupted run."""
    recipe = Recipe(steps=steps, batch_size=batch, num_scenes=scenes, seed=seed)
    train_clip(out, recipe, threads=threads, compiled=compiled)


if __name__ == "__main__":
    typer.run(main)
