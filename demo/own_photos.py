"""Synthetic photos with the variety of real ones: names, folders, sizes, formats, orientations;
and the list of their classes.

    python -m demo.own_photos photos --count 24 --truth corrected.csv

Used by the tutorial and its notebook.
"""

import csv
from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from PIL import Image

from demo.street import draw_scene
from pipeline.scenes.classes import LABEL_SPACES
from pipeline.scenes.image_io import ORIENTATION
from pipeline.system.command import command
from pipeline.system.outputs import outputs
from pipeline.system.progress import progress

app = typer.Typer(add_completion=False)
SCALES = (1.0, 0.75, 1.5)
SEEN = 8  # pixels from which a class counts as visible


def odd_name(number: int) -> str:
    """A path within the folder, named as by a phone, browser or dash cam."""
    return (
        f"Fahrt nach M\u00fcnchen/IMG {number:04d}.JPG",
        f"stra\u00dfe-{number}.webp",
        f"dashcam.{number}.PNG",
    )[number % 3]


def save_oddly(scene: np.ndarray, number: int, folder: Path) -> str:
    """Save a scene in one of several formats and orientations; return its path in the folder."""
    name = odd_name(number)
    scale = SCALES[number // 3 % len(SCALES)]
    photo = Image.fromarray(scene)
    photo = photo.resize((round(photo.width * scale), round(photo.height * scale)))
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if number % 3 == 0:  # portrait orientation: pixels rotated, with an EXIF tag
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        photo.transpose(Image.Transpose.ROTATE_90).save(path, quality=95, exif=exif)
    else:
        photo.save(path, quality=95)
    return name


@app.command()
@command
def main(
    out: Annotated[Path, typer.Argument(help="Folder to draw into.")],
    count: Annotated[int, typer.Option(min=1, help="Number of photos.")] = 24,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the scenes.")] = 99,
    truth: Annotated[Path | None, typer.Option(help="CSV file for the true tags.")] = None,
) -> None:
    """Draw a folder of photos that vary in name, size, format and orientation, with classes.csv."""
    files = {f"photo {number}": out / odd_name(number) for number in range(count)}
    files |= {"list of classes": out / "classes.csv"} | ({"--truth": truth} if truth else {})
    with outputs("own_photos", files=files):
        names, rows = LABEL_SPACES["demo"].names, []
        for number in progress(range(count), label="draw", total=count):
            scene, mask = draw_scene(seed, number)
            pixels = np.bincount(mask[mask < len(names)], minlength=len(names))
            tags = [name for name, seen in zip(names, pixels >= SEEN, strict=True) if seen]
            rows.append([save_oddly(scene, number, out), "|".join(tags)])
        words = [[info.name, "|".join(info.words)] for info in LABEL_SPACES["demo"].classes]
        _write_csv(out / "classes.csv", [["class", "words"], *words])
        if truth is not None:
            _write_csv(truth, [["photo", "tags"], *rows])


def _write_csv(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as handle:
        csv.writer(handle, lineterminator="\n").writerows(rows)


if __name__ == "__main__":
    app()
