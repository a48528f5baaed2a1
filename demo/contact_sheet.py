"""Draw a sheet of demo scenes beside their masks and print how often each class occurs."""

from pathlib import Path
from typing import Annotated

import numpy as np
import typer
from numpy.typing import NDArray
from PIL import Image

from demo.street import CLASSES, draw_scene

Array = NDArray[np.uint8]

COLOURS: tuple[tuple[int, int, int], ...] = (  # Cityscapes, in the order of CLASSES
    (128, 64, 128), (244, 35, 232), (70, 70, 70), (102, 102, 156), (190, 153, 153),
    (153, 153, 153), (250, 170, 30), (220, 220, 0), (107, 142, 35), (152, 251, 152),
    (70, 130, 180), (220, 20, 60), (255, 0, 0), (0, 0, 142), (0, 0, 70), (0, 60, 100),
    (119, 11, 32),
)  # fmt: skip


def contact_sheet(scenes: list[tuple[Array, Array]], *, columns: int) -> Array:
    """Images with their colour masks below, ``columns`` side by side, ``[H, W, 3]`` uint8."""
    palette = np.array(COLOURS, np.uint8)
    tiles = [np.concatenate([image, palette[mask]]) for image, mask in scenes]
    rows = [
        np.concatenate(tiles[k : k + columns], axis=1)
        for k in range(0, len(tiles) - len(tiles) % columns, columns)
    ]
    return np.concatenate(rows)


def class_frequency(masks: list[Array], *, min_pixels: int = 8) -> list[tuple[str, float, float]]:
    """Name, share of all pixels and share of scenes (with more than a speck) of each class."""
    counts = np.stack([np.bincount(mask.ravel(), minlength=len(CLASSES)) for mask in masks])
    pixels, scenes = counts.sum(0) / counts.sum(), (counts > min_pixels).mean(0)
    return list(zip(CLASSES, pixels.tolist(), scenes.tolist(), strict=True))


def main(
    out: Annotated[Path, typer.Option(help="PNG file to write.")],
    seed: Annotated[int, typer.Option(help="Collection of scenes.")] = 0,
    count: Annotated[int, typer.Option(help="Number of scenes to draw and count.")] = 60,
    shown: Annotated[int, typer.Option(help="Number of scenes on the sheet.")] = 24,
    columns: Annotated[int, typer.Option(help="Scenes in a row.")] = 6,
    wide: Annotated[bool, typer.Option(help="Widen light, colour and camera.")] = False,
) -> None:
    """Draw a sheet of demo scenes beside their masks and print how often each class occurs."""
    if not 1 <= columns <= shown <= count:
        raise typer.BadParameter(f"need columns <= shown <= count, got {columns}, {shown}, {count}")
    scenes = [draw_scene(seed, index, wide=wide) for index in range(count)]
    Image.fromarray(contact_sheet(scenes[:shown], columns=columns)).save(out)
    for name, pixels, share in class_frequency([mask for _, mask in scenes]):
        typer.echo(f"{name:14} {pixels:7.2%} of pixels, in {share:4.0%} of scenes")


if __name__ == "__main__":
    typer.run(main)
