"""Pictures a person can look at: masks in colour, panels of photos, confusion matrix, IoU bars.

Equal input gives equal bytes: PNG files carry no date and no version, matplotlib's settings are its
own defaults, and all fonts come with Pillow and matplotlib.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont, ImageOps

from pipeline.files import atomic_path
from pipeline.metrics import areas, nan_mean

if TYPE_CHECKING:  # matplotlib takes a second to import, and panels do not need it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Picture = npt.NDArray[np.uint8]

IGNORE_COLOUR = (255, 255, 255)
INK, PAPER, FAINT = (32, 33, 36), (255, 255, 255), (120, 124, 130)
# Least and most readable width of one picture in a panel, in pixels.
PANEL_WIDTH, CELL_WIDTH = 1400, 640  # at most: a panel fits into a browser window
GAP, TITLE_HEIGHT = 8, 34
# Okabe and Ito's colours: told apart with any kind of colour vision.
BAR_COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")


def colour_mask(mask: npt.NDArray[Any], palette: Picture) -> Picture:
    """Paint each class in its colour; what is no class (ignored) becomes white.

    Args:
        mask: ``[H, W]`` integer, class index or 255.
        palette: ``[C, 3]`` uint8 RGB.

    Returns:
        ``[H, W, 3]`` uint8 RGB.
    """
    colours = np.vstack([palette, np.array([IGNORE_COLOUR], np.uint8)])
    index = mask.astype(np.int64)
    return colours[np.where((index < 0) | (index >= len(palette)), len(palette), index)]


def overlay(
    image: Picture, mask: npt.NDArray[Any], palette: Picture, *, alpha: float = 0.6
) -> Picture:
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


def panel(
    rows: Sequence[Sequence[Picture]],
    *,
    titles: Sequence[str] = (),
    names: Sequence[str] = (),
    palette: Picture | None = None,
) -> Image.Image:
    """Arrange pictures in a grid, titles above the columns and the class colours below.

    All pictures get the size of the first, which is enlarged (sharp pixels) or reduced by a whole
    factor, as large as fits into a panel of 1400 pixels and a cell of 640.

    Args:
        rows: rows of pictures, ``[H, W, 3]`` uint8 RGB each.
        titles: one a column; or none, then rows may differ in length.
        names: class names for the legend, or none.
        palette: their colours, ``[C, 3]`` uint8 RGB.

    Raises:
        ValueError: there is no picture, or a row has not one for each title.
    """
    lengths = [len(row) for row in rows]
    columns = len(titles) or max(lengths, default=0)
    if not columns or not rows or (titles and set(lengths) != {columns}):
        raise ValueError(
            f"a panel needs rows of {columns or 'some'} pictures, one for each title, "
            f"got rows of {lengths}"
        )
    width, height = _cell_size(rows[0][0], min(CELL_WIDTH, PANEL_WIDTH // columns))
    top = TITLE_HEIGHT if titles else GAP
    bottom = top + len(rows) * (height + GAP)
    legend = _legend(names, palette, GAP + columns * (width + GAP))
    sheet = Image.new("RGB", (legend.width, bottom + legend.height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        centre = GAP + column * (width + GAP) + width // 2
        draw.text((centre, TITLE_HEIGHT // 2), title, INK, _font(18), anchor="mm")
    for line, row in enumerate(rows):
        for column, picture in enumerate(row):
            place = (GAP + column * (width + GAP), top + line * (height + GAP))
            sheet.paste(_fit(picture, (width, height)), place)
    sheet.paste(legend, (0, bottom))
    return sheet


def _cell_size(picture: Picture, limit: int) -> tuple[int, int]:
    """Width and height of a picture after enlarging or reducing by a whole factor."""
    height, width = picture.shape[:2]
    if width <= limit:
        factor = limit // width
        return width * factor, height * factor
    shrink = -(-width // limit)
    return width // shrink, height // shrink


def _fit(picture: Picture, size: tuple[int, int]) -> Image.Image:
    """Resize into ``size`` (width, height), white beside it where the proportions differ."""
    image = Image.fromarray(picture)
    enlarged = image.width < size[0]
    method = Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX
    return ImageOps.pad(image, size, method, color=PAPER)


def _font(size: int) -> Any:
    return ImageFont.load_default(size)


def _legend(names: Sequence[str], palette: Picture | None, width: int) -> Image.Image:
    """A box of colour and the name of each class, in equal columns; the last is the ignored one."""
    if not names or palette is None:
        return Image.new("RGB", (width, 0), PAPER)
    font, box, line = _font(16), 18, 28
    entries = [*zip(names, map(tuple, palette.tolist()), strict=True), ("ignored", IGNORE_COLOUR)]
    column = int(max(font.getlength(name) for name, _ in entries)) + box + 34
    num_columns = max(1, min(len(entries), (width - GAP) // column))
    num_lines = -(-len(entries) // num_columns)
    num_columns = -(-len(entries) // num_lines)  # as even as they go
    left = max(GAP, (width - num_columns * column) // 2)
    sheet = Image.new("RGB", (width, num_lines * line + 2 * GAP), PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (name, colour) in enumerate(entries):
        x, y = left + index % num_columns * column, GAP + index // num_columns * line
        draw.rectangle((x, y, x + box, y + box), fill=colour, outline=FAINT)
        draw.text((x + box + 8, y + box // 2), name, INK, font, anchor="lm")
    return sheet


def save_png(path: Path, image: Image.Image | Picture) -> None:
    """Write a picture as PNG, whole or not at all."""
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    with atomic_path(path) as draft:
        picture.save(draft, format="PNG")


@contextmanager
def chart(width: float, height: float) -> Iterator[tuple["Figure", "Axes"]]:
    """An empty chart of so many inches, untouched by the user's matplotlib settings and display."""
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with style.context("default"):
        figure = Figure(figsize=(width, height), dpi=110, layout="constrained")
        FigureCanvasAgg(figure)
        axes = figure.subplots()
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        yield figure, axes


def save_chart(figure: "Figure", path: Path) -> None:
    """Write a chart as PNG, whole or not at all."""
    with atomic_path(path) as draft:
        figure.savefig(draft, format="png", metadata={"Software": None})


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
    size = len(names)
    with chart(0.46 * size + 2.6, 0.4 * size + 1.8) as (figure, axes):
        shown = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        _write_cells(axes, percent)
        axes.set_xticks(range(size), names, rotation=45, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(size), names)
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
        figures: what is compared (at most six) and its IoU ``[C]`` in 0..1, NaN for no union.
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
        axes.set_yticks(range(len(names)), names)
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, 100)
        axes.set_xlabel("IoU in %", color="0.35")
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", frameon=False)
        save_chart(figure, path)
