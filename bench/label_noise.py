"""Random errors in image-level labels, to measure their effect on mIoU.

    python -m bench.label_noise data/image_labels.csv noisy.csv --miss 0.2

Set ``dataset.image_labels`` to the written file.
"""

import csv
import hashlib
from pathlib import Path
from typing import Annotated

import numpy as np
import typer

from pipeline.scenes.image_labels import ImageLabels, read_image_labels, write_image_labels
from pipeline.system.command import command
from pipeline.system.outputs import outputs

app = typer.Typer(add_completion=False)


def with_noise(labels: ImageLabels, *, miss: float, false_alarm: float, seed: int) -> ImageLabels:
    """Drop and add classes at random, independently per image and class.

    The errors of an image depend only on its key and the seed; errors at a lower rate are a subset
    of those at a higher rate.

    Args:
        labels: true labels, ``[C]`` bool by key.
        miss: probability that a present class is left out.
        false_alarm: probability that an absent class is added; 1: labels carry no information.
        seed: of all draws.
    """
    noisy = {}
    for key, row in labels.items():
        own = int.from_bytes(hashlib.sha256(key.encode()).digest()[:8])
        draws = np.random.default_rng([seed, own]).random(len(row))
        noisy[key] = np.where(row, draws >= miss, draws < false_alarm)
    return noisy


def write_noisy(
    source: Path, target: Path, *, miss: float = 0.0, false_alarm: float = 0.0, seed: int = 0
) -> int:
    """Write labels with errors; images that lose all classes are left out.

    Args:
        source: image-level labels as the stage `prepare` writes them.
        target: file to write.
        miss, false_alarm, seed: as in `with_noise`.

    Returns:
        the number of images left out.
    """
    with source.open(newline="", encoding="utf-8") as handle:
        classes = next(csv.reader(handle), [""])[1:]
    labels = read_image_labels(source, classes)
    noisy = with_noise(labels, miss=miss, false_alarm=false_alarm, seed=seed)
    kept = {key: row for key, row in noisy.items() if row.any()}
    target.parent.mkdir(parents=True, exist_ok=True)
    write_image_labels(target, kept, classes)
    return len(noisy) - len(kept)


@app.command()
@command
def main(
    labels: Annotated[Path, typer.Argument(help="Image-level labels, as `prepare` writes them.")],
    out: Annotated[Path, typer.Argument(help="CSV file to write.")],
    miss: Annotated[
        float, typer.Option(min=0, max=1, help="Probability that a present class is left out.")
    ] = 0.0,
    false_alarm: Annotated[
        float, typer.Option(min=0, max=1, help="Probability that an absent class is added.")
    ] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of all draws.")] = 0,
) -> None:
    """Write image-level labels with random errors."""
    if not labels.is_file():
        raise ValueError(f"{labels}: no such file; run `dvc repro prepare` first")
    with outputs("label_noise", files={"OUT": out}):
        dropped = write_noisy(labels, out, miss=miss, false_alarm=false_alarm, seed=seed)
    typer.echo(f"wrote {out}; left out {dropped} images without any class")


if __name__ == "__main__":
    app()
