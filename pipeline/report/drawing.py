"""Pictures a person can look at: masks in colour, marks on photos, confusion matrix, IoU bars.

Equal input gives equal bytes: PNG files carry no date and no version, matplotlib's settings are its
own defaults, and the font is that of `pipeline.report.fonts`.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.metrics import areas, nan_mean
from pipeline.report.fonts import chart_settings, fitted, picture_font
from pipeline.system.files import atomic_path

if TYPE_CHECKING:  # matplotlib takes a second to import, and panels do not need it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

RgbArray = npt.NDArray[np.uint8]
AnyMask = npt.NDArray[Any]

DPI = 110
NAME_WIDTH, USUAL_WIDTH = 330, 130  # pixels of a class's name in a chart: at most, and of most
IGNORE_COLOUR = (255, 255, 255)
MARK_STRIPES, MARK_OUTLINE = ((255, 190, 30), (165, 95, 0)), (40, 20, 0)
# Okabe and Ito's colours: told apart with any kind of colour vision.
BAR_COLOURS = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#cc79a7",
    "#56b4e9",
    "#d55e00",
    "#f0e442",
    "#333333",
)


def colour_mask(mask: AnyMask, palette: RgbArray) -> RgbArray:
    """Paint each class in its colour; what is no class (ignored) becomes white.

    Args:
        mask: ``[H, W]`` integer, class index or 255.
        palette: ``[C, 3]`` uint8 RGB.

    Returns:
        ``[H, W, 3]`` uint8 RGB.
    """
    colours = np.vstack([palette, np.array([IGNORE_COLOUR], np.uint8)])
    index = mask.astype(np.int64)
    known = (index >= 0) & (index < len(palette))
    return np.asarray(colours[np.where(known, index, len(palette))])


def overlay(image: RgbArray, mask: AnyMask, palette: RgbArray, *, alpha: float = 0.6) -> RgbArray:
    """Lay the mask's colours over the photo; the photo stays as it is where the mask is ignored.

    Args:
        image: ``[H, W, 3]`` uint8 RGB.
        mask: ``[H, W]`` integer, class index or 255.
        palette: ``[C, 3]`` uint8 RGB.
        alpha: share of the colour, 0 (photo only) to 1 (colour only).

    Returns:
        ``[H, W, 3]`` uint8 RGB.
    """
    known = ((mask >= 0) & (mask < len(palette)))[:, :, None]
    mixed = (1 - alpha) * image + alpha * colour_mask(mask, palette)
    return np.where(known, np.rint(mixed).astype(np.uint8), image)


def changes(image: RgbArray, before: AnyMask, after: AnyMask, palette: RgbArray) -> RgbArray:
    """What another mask changes: the photo faded, over it the new colours of what changed.

    Args:
        image: ``[H, W, 3]`` uint8 RGB.
        before: ``[H, W]`` integer, class index or 255.
        after: the same.
        palette: ``[C, 3]`` uint8 RGB.

    Returns:
        ``[H, W, 3]`` uint8 RGB.
    """
    return np.asarray(
        np.where((before != after)[:, :, None], colour_mask(after, palette), faded(image))
    )


def faded(image: RgbArray) -> RgbArray:
    """A photo in light grey, to draw on."""
    grey = image.astype(np.float64).mean(axis=2, keepdims=True)
    return np.asarray(np.rint(165 + 0.35 * grey.repeat(3, axis=2)), np.uint8)


def mark_region(image: RgbArray, region: npt.NDArray[np.bool_]) -> RgbArray:
    """Tint a region of a photo, stripe it and draw its outline, all told apart by their lightness
    alone.

    Args:
        image: ``[H, W, 3]`` uint8 RGB.
        region: ``[H, W]``.

    Returns:
        ``[H, W, 3]`` uint8 RGB.
    """
    height, width = region.shape
    rows, columns = np.ogrid[:height, :width]
    stripes = np.array(MARK_STRIPES)[(rows + columns) // 4 % 2]
    tinted = np.rint(0.3 * image + 0.7 * stripes).astype(np.uint8)
    marked = np.where(region[:, :, None], tinted, image)
    marked[region & ~_inside(region)] = MARK_OUTLINE
    return marked


def _inside(region: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Pixels of a region whose four neighbours are of it, or beyond the photo."""
    wide = np.pad(region, 1, constant_values=True)
    return wide[:-2, 1:-1] & wide[2:, 1:-1] & wide[1:-1, :-2] & wide[1:-1, 2:]


def heat(values: npt.NDArray[np.floating[Any]], top: float) -> RgbArray:
    """Paint numbers from dark blue (0) to yellow (``top`` and more), ``[H, W]`` -> ``[H, W, 3]``.

    The colours are those of ``cividis``, which look nearly alike to people of any colour vision.
    """
    import matplotlib as mpl

    colours = (255 * mpl.colormaps["cividis"](np.arange(256))[:, :3]).round().astype(np.uint8)
    return np.asarray(colours[np.rint(255 * (values / top).clip(0, 1)).astype(int)])


def save_png(path: Path, image: Image.Image | RgbArray) -> None:
    """Write a picture as PNG, whole or not at all."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    with atomic_path(path) as draft:
        picture.save(draft, format="PNG")


@contextmanager
def chart(width: float, height: float) -> Iterator[tuple["Figure", "Axes"]]:
    """An empty chart of so many inches, untouched by the user's matplotlib settings and display."""
    from matplotlib import rc_context, style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style.context("default"), rc_context(chart_settings()):
        figure = Figure(figsize=(width, height), dpi=DPI, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        yield figure, axes


def save_chart(figure: "Figure", path: Path) -> None:
    """Write a chart as PNG, whole or not at all."""
    with atomic_path(path) as draft:
        figure.savefig(draft, format="png", metadata={"Software": None})


def chart_names(names: Sequence[str]) -> tuple[list[str], float]:
    """Names as a chart has room for them, and how many inches the longest needs beyond the usual
    ones."""
    font = picture_font(15)  # about that of the charts, in pixels
    shown = [fitted(name, font, NAME_WIDTH) for name in names]
    return shown, max(0.0, max(map(font.getlength, shown), default=0) - USUAL_WIDTH) / DPI


def confusion_figure(confusion: npt.NDArray[np.int64], names: Sequence[str], path: Path) -> None:
    """Draw where the pixels of each class went, in percent of the class, as a PNG.

    Args:
        confusion: ``[C, C]`` counts, rows = mask; a class that no mask holds has an empty row.
        names: C class names.
        path: file to write.
    """
    annotated = areas(confusion)[2][:, None]
    percent = np.full(confusion.shape, np.nan)
    np.divide(100.0 * np.asarray(confusion), annotated, out=percent, where=annotated > 0)
    size, (shown_names, more) = len(names), chart_names(names)
    with chart(0.46 * size + 2.6 + 1.7 * more, 0.4 * size + 1.8 + 0.7 * more) as (figure, axes):
        shown = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        _write_cells(axes, percent)
        axes.set_xticks(range(size), shown_names, rotation=45, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(size), shown_names)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.tick_params(length=0)
        axes.set_xlabel("predicted as", color="0.35")
        axes.set_ylabel("annotated as", color="0.35")
        axes.set_xticks(np.arange(size - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(size - 1) + 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="minor", length=0)
        bar = figure.colorbar(shown, label="% of the annotated pixels", fraction=0.03, pad=0.02)
        bar.outline.set_visible(False)
        save_chart(figure, path)


def _write_cells(axes: "Axes", percent: npt.NDArray[np.float64]) -> None:
    """Whole percents, in ink that stands out; below half a percent nothing."""
    for row, column in np.argwhere(percent >= 0.5).tolist():
        value = percent[row, column]
        ink = "white" if value > 55 else "0.15"
        weight = "bold" if row == column else "normal"
        axes.text(
            column, row, f"{value:.0f}", ha="center", va="center", c=ink, weight=weight, size=8.5
        )
    for row in np.flatnonzero(np.isnan(percent).all(axis=1)).tolist():
        middle = (len(percent) - 1) / 2
        axes.text(middle, row, "in no mask", ha="center", va="center", c="0.45", size=8.5)


def iou_bars(
    figures: Mapping[str, npt.NDArray[np.float64]], names: Sequence[str], path: Path
) -> None:
    """Draw the IoU of each class as horizontal bars, a group a class, as a PNG.

    Args:
        figures: what is compared (at most eight) and its IoU ``[C]`` in 0..1, NaN for no union.
        names: C class names.
        path: file to write.
    """
    thick = 0.8 / len(figures)
    height = len(names) * (0.16 + 0.17 * len(figures)) + 0.9 + 0.25 * len(figures)
    with chart(8.0, height) as (figure, axes):
        for place, (label, values) in enumerate(figures.items()):
            middles = np.arange(len(names)) + (place - (len(figures) - 1) / 2) * thick
            percent = 100 * np.asarray(values, np.float64)
            title = f"{label}: mean {nan_mean(percent):.1f} %"
            colour = BAR_COLOURS[place % len(BAR_COLOURS)]
            axes.barh(middles, np.nan_to_num(percent), 0.9 * thick, color=colour, label=title)
            for middle, value in zip(middles, percent, strict=True):
                text = "absent" if np.isnan(value) else f"{value:.1f}"
                axes.text(np.nan_to_num(value) + 0.8, middle, text, va="center", size=8, c="0.2")
        axes.set_yticks(range(len(names)), chart_names(names)[0])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.set_xlabel("IoU in %", color="0.35")
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", frameon=False)
        save_chart(figure, path)
