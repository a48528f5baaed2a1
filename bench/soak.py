"""Does a long training run hold on to anything? Memory, open files, threads and speed, from score
to score.

    python -m bench.soak

It draws a small data set, runs stage 1 on it, and trains as stage 2 does, with curves, checkpoints,
pictures and a score of the validation photos on the way. Exit code 1: something grew. Linux only.
"""

import logging
import multiprocessing
import os
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer
from torch import nn

from bench.timing import processor
from bench.workload import Street, draw_street, random_clip, store_maker
from pipeline.evaluation.scores import score_segmenter
from pipeline.metrics import mean_iou
from pipeline.report.previews import Previews
from pipeline.segmenter.inference import WHOLE
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.command import command, start_fabric
from pipeline.system.files import write_json
from pipeline.system.output_folders import outputs
from pipeline.training.curves import Curves
from pipeline.training.fit import fit
from pipeline.training.run import Inputs, as_segmenter, first_segmenter

app = typer.Typer(add_completion=False)
log = logging.getLogger("carb")
TRAIN, VAL = 16, 6  # photos
SETTLED = 1  # the first score fills caches; what comes after it is compared
MORE_MEMORY = 1.03  # than when it had settled


@dataclass(frozen=True)
class Sample:
    """What the run held right after a score.

    Attributes:
        step: updates so far.
        rss_mib: resident memory of this process.
        workers_mib: resident memory of the processes that load photos, what they share included.
        handles: open files of all of them, see `held_by`.
        threads: of all of them.
        steps_per_s: since the last score, that score left out.
        miou: of the validation photos: the run is a real one.
    """

    step: int
    rss_mib: float
    workers_mib: float
    handles: int
    threads: int
    steps_per_s: float
    miou: float


def held_by(pid: int) -> tuple[float, int, int]:
    """Resident MiB, open files and threads of a process, as Linux tells them.

    Shared memory is no file here: how much of it is open says how many batches wait.
    """
    process = Path(f"/proc/{pid}")
    status = dict(line.split(":", 1) for line in (process / "status").read_text().splitlines())
    files = 0
    for handle in (process / "fd").iterdir():
        try:
            files += not os.readlink(handle).startswith("/dev/shm/")
        except FileNotFoundError:  # closed since, like the one that lists them
            continue
    return int(status["VmRSS"].split()[0]) / 2**10, files, int(status["Threads"])


class Watch:
    """Takes samples of this process and its children.

    Attributes:
        samples: those taken so far.
    """

    def __init__(self) -> None:
        self.samples: list[Sample] = []
        self._step, self._clock = 0, time.perf_counter()

    def seconds(self) -> float:
        """Time since the last sample, or since the start."""
        return time.perf_counter() - self._clock

    def take(self, step: int, *, seconds: float, miou: float) -> None:
        """Take one.

        Args:
            step: updates so far.
            seconds: how long the updates since the last one took.
            miou: of the validation photos.
        """
        workers = [process.pid for process in multiprocessing.active_children()]
        memory, handles, threads = zip(
            *map(held_by, [os.getpid(), *filter(None, workers)]), strict=True
        )
        rate = (step - self._step) / seconds
        self.samples.append(
            Sample(step, memory[0], sum(memory[1:]), sum(handles), sum(threads), rate, miou)
        )
        self._step, self._clock = step, time.perf_counter()


def growth(samples: list[Sample]) -> list[str]:
    """What grew after the run had settled, a sentence each; empty: nothing.

    Speed is told, not judged: it is the machine's as much as the run's.
    """
    start, later = samples[SETTLED], samples[SETTLED + 1 :]
    allowed = {"rss_mib": MORE_MEMORY, "workers_mib": MORE_MEMORY, "handles": 1, "threads": 1}
    found = []
    for name, factor in allowed.items():
        before, most = getattr(start, name), max(getattr(sample, name) for sample in later)
        if most > before * factor:
            found.append(f"{name} grew from {before:.6g} at step {start.step} to {most:.6g}")
    return found


def draw(folder: Path, *, steps: int, every: int) -> Street:
    """A small data set, and parameters of a long run of small steps."""
    return draw_street(
        folder,
        train=TRAIN,
        val=VAL,
        views__base_size=[64, 128],
        views__crop=[64, 64],
        views__local_window=[32, 32],
        segmenter__options={"decoder_channels": [32, 16, 16, 8, 8]},
        carb__warmup_share=0.1,
        train__steps=steps,
        train__batch_size=2,
        train__workers=1,
        train__precision="32-true",
        train__checkpoint_every=every,
        train__preview_every=every,
    )


def soak(street: Street, store: PseudoMaskStore) -> list[Sample]:
    """Train to the end, and take a sample after every score.

    Args:
        street: photos and parameters.
        store: their pseudo-masks.
    """
    params, watch = street.params, Watch()
    encoder = Path(params.segmenter.encoder_weights)
    inputs = Inputs(street.index, street.labels, store, encoder, fingerprint="soak")
    palette, scenes = street.index.label_space.palette, street.dataset.scenes("val")
    pictures = Previews(
        inputs.photos("val", street.dataset.root), store, params.carb, steps=params.train.steps
    )
    curves = Curves(street.folder / "curves", street.folder / "speed")

    def show(step: int, model: nn.Module) -> None:
        seconds = watch.seconds()
        segmenter = as_segmenter(model, inputs, params, palette)
        curves.log_picture(f"preview/{step:06d}", pictures.draw(segmenter, step))
        score = score_segmenter(
            segmenter,
            scenes,
            read_mask=street.dataset.read_mask,
            store=store,
            labels=street.labels,
            presentation=WHOLE,
        )
        watch.take(step, seconds=seconds, miou=mean_iou(score.confusion))
        log.info("%s", watch.samples[-1])

    fit(
        start_fabric(params.train.precision),
        first_segmenter(inputs, params),
        store,
        inputs.photos("train", street.dataset.root),
        params,
        checkpoint=street.folder / "checkpoint.safetensors",
        log_step=curves.log_step,
        show=show,
    )
    curves.close()
    return watch.samples


def print_table(samples: list[Sample]) -> None:
    """One line a sample."""
    from rich.console import Console
    from rich.table import Table

    table = Table("step", "MiB", "workers' MiB", "files", "threads", "steps/s", "mIoU")
    for one in samples:
        memory, others = f"{one.rss_mib:.1f}", f"{one.workers_mib:.1f}"
        counts = (f"{one.handles}", f"{one.threads}")
        table.add_row(
            f"{one.step}", memory, others, *counts, f"{one.steps_per_s:.1f}", f"{one.miou:.4f}"
        )
    Console().print(table)


@app.command()
@command
def main(
    steps: Annotated[int, typer.Option(min=30, help="Updates.")] = 5000,
    every: Annotated[int, typer.Option(min=10, help="Updates between scores.")] = 500,
    out: Annotated[Path, typer.Option(help="JSON file of the figures.")] = Path(
        "scratch/soak.json"
    ),
) -> None:
    """Train for long, and see whether anything grows."""
    if not Path("/proc/self/status").exists():
        raise ValueError("bench.soak reads /proc, which only Linux has")
    if steps // every < SETTLED + 2:
        raise ValueError(f"--steps {steps}: must be at least {SETTLED + 2} times --every {every}")
    with outputs("soak", files={"--out": out}), tempfile.TemporaryDirectory() as folder:
        street = draw(Path(folder), steps=steps, every=every)
        store = PseudoMaskStore.open(store_maker(street, random_clip(""))())
        samples = soak(street, store)
        found = growth(samples)
        about = {"processor": processor(), "grew": found}
        write_json(out, about | {"samples": [asdict(sample) for sample in samples]})
    print_table(samples)
    for sentence in found:
        typer.echo(sentence)
    if found:
        raise typer.Exit(1)


if __name__ == "__main__":
    app()
