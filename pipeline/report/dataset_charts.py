"""What `prepare` leaves to look at: the photos, their sizes, and how many of them hold each
class."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.report.drawing import BAR_COLOURS, chart, chart_names, save_chart, save_png
from pipeline.report.panels import contact_sheet, downscale_for_panel
from pipeline.scenes.image_io import read_image
from pipeline.scenes.image_labels import ImageLabels
from pipeline.scenes.index import USED, IndexedPhoto, SceneIndex
from pipeline.system.files import atomic_path, write_table

log = logging.getLogger("carb")
SHEET = 12  # photos of the contact sheet
NAMED_SIZES = 8  # the most frequent ones
SPLIT_COLOURS = dict(zip(USED, BAR_COLOURS, strict=False))
Rows = npt.NDArray[np.bool_]


def prepare_report(out: Path, index: SceneIndex, labels: ImageLabels, *, root: Path) -> None:
    """Write ``photos.png``, ``sizes.png``, ``class_frequency.png`` and ``image_labels.csv``: some
    training photos, how large photos are, and how many of them hold each class."""
    classes = index.label_space.names
    rows = {
        split: np.stack(found)
        for split in USED
        if (found := [row for key, row in labels.items() if key.startswith(f"{split}/")])
    }
    train = rows["train"]
    table = [
        {"class": name, "photos": int(count), "share": round(count / len(train), 4)}
        for name, count in zip(classes, train.sum(axis=0), strict=True)
    ]
    photos = index.of_split("train")
    places = np.linspace(0, len(photos) - 1, min(SHEET, len(photos))).round().astype(int)
    few = [photos[place] for place in places]
    sheet = [(photo.key, downscale_for_panel(read_image(photo.path(root)))[0]) for photo in few]
    with atomic_path(out) as draft:
        draft.mkdir()
        write_table(draft / "image_labels.csv", table)
        save_png(draft / "photos.png", contact_sheet(sheet))
        frequency_bars(rows, classes, draft / "class_frequency.png")
        size_chart(index.photos, draft / "sizes.png")
    for split in USED:
        log.info("%s: %d photos of '%s'", split, len(index.of_split(split)), index.label_space.name)
    log.info("classes a training photo: %.1f of %d", train.sum(axis=1).mean(), len(classes))


def frequency_bars(rows: Mapping[str, Rows], classes: Sequence[str], path: Path) -> None:
    """Draw the share of the photos that hold each class, the most frequent one first, as a PNG.

    Args:
        rows: image-level labels by split, ``[N, C]`` each, the training photos first.
        classes: C class names.
        path: file to write.
    """
    shown = chart_names(classes)[0]
    order = np.argsort(-next(iter(rows.values())).sum(axis=0), kind="stable")
    thick = 0.8 / len(rows)
    height = len(classes) * (0.16 + 0.17 * len(rows)) + 0.9 + 0.25 * len(rows)
    with chart(8.0, height) as (figure, axes):
        for place, (split, found) in enumerate(rows.items()):
            middles = np.arange(len(classes)) + (place - (len(rows) - 1) / 2) * thick
            counts = found.sum(axis=0)[order]
            percent = 100 * counts / len(found)
            title = f"{split}: {len(found)} photos with image labels"
            axes.barh(middles, percent, 0.9 * thick, color=SPLIT_COLOURS[split], label=title)
            for middle, count, share in zip(middles, counts, percent, strict=True):
                text = f"{count} ({share:.0f} %)"
                axes.text(share + 0.8, middle, text, va="center", size=8, c="0.2")
        axes.set_yticks(range(len(classes)), [shown[place] for place in order])
        axes.set_ylim(len(classes) - 0.4, -0.6)
        axes.set_xlim(0, 112)
        axes.set_xticks(range(0, 101, 20))
        axes.set_xlabel("photos that hold the class, in %", color="0.35")
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", frameon=False)
        save_chart(figure, path)


def size_chart(photos: Sequence[IndexedPhoto], path: Path) -> None:
    """Draw widths and heights as a PNG: a disk (train) or ring (val) a size, the larger the more
    frequent it is; the most frequent sizes are listed."""
    from matplotlib.lines import Line2D

    sizes = Counter(photo.size for photo in photos)
    highest, widest = (1.12 * max(sides) for sides in zip(*sizes, strict=True))
    handles = []
    with chart(8.0, max(2.4, min(9.0, 5.2 * highest / widest)) + 1.2) as (figure, axes):
        for split, colour in SPLIT_COLOURS.items():
            own = Counter(photo.size for photo in photos if photo.split == split)
            if not own:
                continue
            heights, widths = np.array(list(own)).T
            area = 40 + 400 * np.array(list(own.values())) / max(sizes.values())
            face = "none" if split == "val" else colour
            axes.scatter(widths, heights, area, edgecolors=colour, facecolors=face, linewidths=2)
            label = f"{split}: {own.total()} photos of {len(own)} size{'s' * (len(own) > 1)}"
            look: dict[str, Any] = {"color": colour, "markerfacecolor": face, "markeredgewidth": 2}
            handles.append(Line2D([], [], ls="", marker="o", markersize=8, label=label, **look))
        listed = "\n".join(["photos by size", *_named_sizes(sizes)])
        axes.text(1.02, 1, listed, va="top", transform=axes.transAxes)
        axes.set_xlim(0, widest)
        axes.set_ylim(0, highest)
        axes.set_aspect("equal", adjustable="box")
        axes.set_xlabel("width in pixels", color="0.35")
        axes.set_ylabel("height in pixels", color="0.35")
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        figure.legend(handles=handles, loc="outside upper left", frameon=False)
        save_chart(figure, path)


def _named_sizes(sizes: Counter[tuple[int, int]]) -> list[str]:
    """The most frequent sizes, a line each."""
    order = sorted(sizes.items(), key=lambda item: (-item[1], item))
    lines = [f"{width} x {height}: {count}" for (height, width), count in order]
    if len(lines) > NAMED_SIZES:
        lines[NAMED_SIZES - 1 :] = [f"{len(lines) - NAMED_SIZES + 1} others"]
    return lines
