"""Single steps for `bench.scale`: each runs in a process of its own and prints what it took.

    python -m bench.scale_steps open

It runs in a folder as `bench.scale` lays it out. Time is that of the step alone, imports left out.
"""

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pipeline.system.command import command

if TYPE_CHECKING:
    from pipeline.training.run import Inputs

app = typer.Typer(add_completion=False)
ROOT = Path("photos")
A_FOLDER = 1000  # photos
SIZE = (32, 48)  # of a photo, pixels
CROPS = 1000


def name_of(number: int) -> str:
    """Path of a photo without ending, below the folder of photos."""
    return f"{number // A_FOLDER:04d}/{number:07d}"


def draw_photos(start: int, stop: int) -> None:
    """Draw photos of soft noise and tag them at random, from their numbers alone."""
    import csv

    import numpy as np
    from PIL import Image

    from pipeline.scenes.classes import LABEL_SPACES

    names = [info.name for info in LABEL_SPACES["cityscapes"].classes]
    ROOT.mkdir(exist_ok=True)
    (ROOT / "classes.csv").write_text("class\n" + "\n".join(names) + "\n", "utf-8")
    with (ROOT / "image_labels.csv").open("a" if start else "w", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        if not start:
            writer.writerow(["key", *names])
        for number in range(start, stop):
            rng = np.random.default_rng(number)
            file = ROOT / "images" / f"{name_of(number)}.jpg"
            if number % A_FOLDER == 0:
                file.parent.mkdir(parents=True, exist_ok=True)
            noise = Image.fromarray(rng.integers(0, 256, (4, 6, 3), dtype=np.uint8))
            noise.resize((SIZE[1], SIZE[0]), Image.Resampling.BILINEAR).save(file)
            tags = rng.random(len(names)) < 0.2
            tags[0] = True
            writer.writerow([name_of(number), *tags.astype(int)])


def read_inputs() -> Callable[[], "Inputs"]:
    """All that training sees, as its stage opens it."""
    from pipeline.config.params import load_params
    from pipeline.training.run import Inputs

    data = Path("data")
    return lambda: Inputs.read(
        index=data / "scenes.json",
        image_labels=data / "image_labels.csv",
        masks=data / "masks.zarr",
        encoder=Path("models/encoder.safetensors"),
        params=load_params(Path("params.yaml")),
    )


def read_index() -> Callable[[], object]:
    """The index of the photos."""
    from pipeline.scenes.index import SceneIndex

    return lambda: SceneIndex.read(Path("data/scenes.json"))


def read_labels() -> Callable[[], object]:
    """The image-level labels that `prepare` wrote."""
    from pipeline.datasets.folder import read_classes
    from pipeline.datasets.label_files import read_label_file

    names = read_classes(ROOT / "classes.csv").names
    return lambda: read_label_file(Path("data/image_labels.csv"), names)


def open_store() -> Callable[[], object]:
    """The store of pseudo-masks."""
    from pipeline.store.reader import PseudoMaskStore

    return lambda: PseudoMaskStore.open(Path("data/masks.zarr"))


def count_classes() -> Callable[[], object]:
    """How often CLIP names each class, which training asks before its first step."""
    from pipeline.training.losses import class_frequency

    inputs = read_inputs()()
    store, photos = inputs.store, inputs.photos("train", ROOT)
    return lambda: class_frequency(store, photos, [store.global_level, *store.local_levels])


def cut_crops() -> Callable[[], object]:
    """Crops of photos at random, global and local view."""
    from pipeline.config.params import load_params
    from pipeline.training.crops import CropDataset

    inputs, params = read_inputs()(), load_params(Path("params.yaml"))
    crops = CropDataset(
        inputs.photos("train", ROOT),
        inputs.store,
        global_level=inputs.store.global_level,
        local_levels=inputs.store.local_levels,
        views=params.views,
        augment=params.augment,
        seed=0,
    )
    return lambda: [crops[position] for position in range(CROPS)][-1]


STEPS: dict[str, Callable[[], Callable[[], object]]] = {
    "index": read_index,
    "labels": read_labels,
    "open": open_store,
    "inputs": read_inputs,
    "frequency": count_classes,
    "crops": cut_crops,
}


@app.command()
@command
def main(
    step: Annotated[str, typer.Argument(help=f"draw, or one of {', '.join(STEPS)}.")],
    start: Annotated[int, typer.Option(min=0, help="First photo to draw.")] = 0,
    stop: Annotated[int, typer.Option(min=1, help="End of the photos to draw.")] = 1000,
) -> None:
    """Run one step and print its seconds: by the clock, and of the processor."""
    if step != "draw" and step not in STEPS:
        raise ValueError(f"STEP must be draw or one of {', '.join(STEPS)}, got '{step}'")
    work = (lambda: draw_photos(start, stop)) if step == "draw" else STEPS[step]()
    clock, cpu = time.perf_counter(), time.process_time()
    work()
    typer.echo(f"{time.perf_counter() - clock:.6f} {time.process_time() - cpu:.6f}")


if __name__ == "__main__":
    app()
