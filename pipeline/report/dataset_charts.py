"""Charts of a data set, by stage `prepare`: contact sheet, image sizes, class frequencies."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.report.charts import BAR_COLOURS, Bars, chart, class_bars, save_chart
from pipeline.report.drawing import save_png
from pipeline.report.panels import contact_sheet, downscale_for_panel, evenly_spaced
from pipeline.scenes.image_io import read_image
from pipeline.scenes.image_labels import ImageLabels
from pipeline.scenes.index import USED, IndexedPhoto, SceneIndex
from pipeline.system.files import atomic_path, write_table

log = logging.getLogger("carb")
SHEET = 12  # images in the contact sheet
LISTED_SIZES = 8  # at most; the most frequent ones
SPLIT_COLOURS = dict(zip(USED, BAR_COLOURS, strict=False))


def prepare_report(out: Path, index: SceneIndex, labels: ImageLabels, *, root: Path) -> None:
    """Write ``photos.png``, ``sizes.png``, ``class_frequency.png``, and ``image_labels.csv`` with
    the class frequencies of the training images.

    Args:
        out: folder to write.
        index: the images.
        labels: their image-level labels.
        root: folder of the data set.
    """
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
    few = evenly_spaced(index.of_split("train"), SHEET)
    sheet = [(photo.key, downscale_for_panel(read_image(photo.path(root)))[0]) for photo in few]
    with atomic_path(out) as draft:
        draft.mkdir()
        write_table(draft / "image_labels.csv", table)
        save_png(draft / "photos.png", contact_sheet(sheet))
        frequency_chart(rows, classes, draft / "class_frequency.png")
        size_chart(index.photos, draft / "sizes.png")
    for split in USED:
        log.info("%s: %d photos of '%s'", split, len(index.of_split(split)), index.label_space.name)
    log.info("classes per training photo: %.1f of %d", train.sum(axis=1).mean(), len(classes))


def frequency_chart(
    rows: Mapping[str, npt.NDArray[np.bool_]], classes: Sequence[str], path: Path
) -> None:
    """Draw the share of images that contain each class, the most frequent class first, as PNG.

    Args:
        rows: image-level labels by split, ``[N, C]`` each, the training split first.
        classes: C class names.
        path: file to write.
    """
    order = np.argsort(-next(iter(rows.values())).sum(axis=0), kind="stable")
    groups = []
    for split, found in rows.items():
        counts = found.sum(axis=0)[order]
        percent = 100 * counts / len(found)
        pairs = zip(counts, percent, strict=True)
        texts = [f"{count} ({share:.0f} %)" for count, share in pairs]
        title = f"{split}: {len(found)} photos with image-level labels"
        groups.append(Bars(title, percent, texts, SPLIT_COLOURS[split]))
    names = [classes[place] for place in order]
    class_bars(groups, names, path, label="photos that contain the class, in %", limit=112)


def size_chart(photos: Sequence[IndexedPhoto], path: Path) -> None:
    """Draw image sizes as PNG: a disc (train) or ring (val) per size, its area by frequency, and a
    list of the most frequent sizes."""
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
            label = f"{split}: {own.total()} photos, {len(own)} size{'s' * (len(own) > 1)}"
            look: dict[str, Any] = {"color": colour, "markerfacecolor": face, "markeredgewidth": 2}
            handles.append(Line2D([], [], ls="", marker="o", markersize=8, label=label, **look))
        listed = "\n".join(["photos per size", *_frequent_sizes(sizes)])
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


def _frequent_sizes(sizes: Counter[tuple[int, int]]) -> list[str]:
    """The most frequent sizes, one per line."""
    order = sorted(sizes.items(), key=lambda item: (-item[1], item))
    lines = [f"{width} x {height}: {count}" for (height, width), count in order]
    if len(lines) > LISTED_SIZES:
        lines[LISTED_SIZES - 1 :] = [f"{len(lines) - LISTED_SIZES + 1} others"]
    return lines
