"""Charts by matplotlib: confusion matrix, IoU bars, training curves.

Equal input gives equal bytes: files contain no date or version, and the user's matplotlib settings
have no effect. matplotlib is imported late, because it takes a second.
"""

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pipeline.metrics import nan_mean
from pipeline.report.fonts import chart_settings, shorten_middle, text_font
from pipeline.system.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

FloatArray = npt.NDArray[np.float64]
DPI = 110
NAME_WIDTH, USUAL_WIDTH = 330, 130  # width of class names in pixels: maximum, and usual
# Okabe and Ito's colours, distinguishable with any colour vision.
_OKABE_ITO = "0072b2 e69f00 009e73 cc79a7 56b4e9 d55e00 f0e442 333333"
BAR_COLOURS = tuple(f"#{colour}" for colour in _OKABE_ITO.split())


@contextmanager
def chart(width: float, height: float) -> Iterator[tuple["Figure", "Axes"]]:
    """An empty chart; size in inches."""
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
    """Write a chart as PNG, atomically."""
    with atomic_path(path) as draft:
        figure.savefig(draft, format="png", metadata={"Software": None})


def chart_names(names: Sequence[str]) -> tuple[list[str], float]:
    """Names shortened for a chart, and how far the longest exceeds the usual width, in inches."""
    font = text_font(15)  # about the size in charts
    shown = [shorten_middle(name, font, NAME_WIDTH) for name in names]
    return shown, max(0.0, max(map(font.getlength, shown), default=0) - USUAL_WIDTH) / DPI


def confusion_chart(confusion: npt.NDArray[np.int64], names: Sequence[str], path: Path) -> None:
    """Draw a confusion matrix in percent of the annotated pixels of each class, as PNG.

    Args:
        confusion: ``[C, C]`` counts, rows = mask.
        names: C class names.
        path: file to write.
    """
    size, (shown_names, more) = len(names), chart_names(names)
    annotated, percent = confusion.sum(axis=1, keepdims=True), np.full((size, size), np.nan)
    np.divide(100.0 * confusion, annotated, out=percent, where=annotated > 0)
    with chart(0.46 * size + 2.6 + 1.7 * more, 0.4 * size + 1.8 + 0.7 * more) as (figure, axes):
        shown = axes.imshow(percent, cmap="Blues", vmin=0, vmax=100, aspect="auto")
        _write_cells(axes, percent)
        axes.set_xticks(range(size), shown_names, rotation=45, ha="left", rotation_mode="anchor")
        axes.set_yticks(range(size), shown_names)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.tick_params(length=0)
        axes.set_xlabel("predicted class", color="0.35")
        axes.set_ylabel("annotated class", color="0.35")
        axes.set_xticks(np.arange(size - 1) + 0.5, minor=True)
        axes.set_yticks(np.arange(size - 1) + 0.5, minor=True)
        axes.grid(which="minor", color="white", linewidth=1.5)
        axes.tick_params(which="minor", length=0)
        bar = figure.colorbar(shown, label="% of annotated pixels", fraction=0.03, pad=0.02)
        bar.outline.set_visible(False)
        save_chart(figure, path)


def _write_cells(axes: "Axes", percent: FloatArray) -> None:
    """Write percentages of at least 0.5, rounded, in a colour that contrasts with the cell."""
    for row, column in np.argwhere(percent >= 0.5).tolist():
        value = percent[row, column]
        ink = "white" if value > 55 else "0.15"
        weight = "bold" if row == column else "normal"
        axes.text(
            column, row, f"{value:.0f}", ha="center", va="center", c=ink, weight=weight, size=8.5
        )
    for row in np.flatnonzero(np.isnan(percent).all(axis=1)).tolist():
        middle = (len(percent) - 1) / 2
        axes.text(middle, row, "not annotated", ha="center", va="center", c="0.45", size=8.5)


class Bars(NamedTuple):
    """One bar per class: legend, percent ``[C]`` (NaN: no bar), text at the end of each, colour."""

    title: str
    percent: FloatArray
    texts: Sequence[str]
    colour: str


def class_bars(
    groups: Sequence[Bars], names: Sequence[str], path: Path, *, label: str, limit: float = 100
) -> None:
    """Draw horizontal bars, one per class and group, as PNG.

    Args:
        groups: what is compared.
        names: C class names, from top to bottom.
        path: file to write.
        label: of the horizontal axis, in percent.
        limit: end of that axis.
    """
    thick = 0.8 / len(groups)
    height = len(names) * (0.16 + 0.17 * len(groups)) + 0.9 + 0.25 * len(groups)
    with chart(8.0, height) as (figure, axes):
        for place, (title, percent, texts, colour) in enumerate(groups):
            middles = np.arange(len(names)) + (place - (len(groups) - 1) / 2) * thick
            widths = np.nan_to_num(percent)
            axes.barh(middles, widths, 0.9 * thick, color=colour, label=title)
            for middle, width, text in zip(middles, widths, texts, strict=True):
                axes.text(width + 0.8, middle, text, va="center", size=8, c="0.2")
        axes.set_yticks(range(len(names)), chart_names(names)[0])
        axes.set_ylim(len(names) - 0.4, -0.6)
        axes.set_xlim(0, limit)
        axes.set_xticks(range(0, 101, 20))
        axes.set_xlabel(label, color="0.35")
        axes.grid(axis="x", color="0.9")
        axes.set_axisbelow(True)
        figure.legend(loc="outside upper left", frameon=False)
        save_chart(figure, path)


def iou_bars(values: Mapping[str, FloatArray], names: Sequence[str], path: Path) -> None:
    """Draw the IoU of each class as horizontal bars, as PNG.

    Args:
        values: IoU ``[C]`` in 0..1 by name (at most eight), NaN for an empty union.
        names: C class names.
        path: file to write.
    """
    groups = []
    for place, (name, one) in enumerate(values.items()):
        percent = 100 * np.asarray(one, np.float64)
        texts = ["absent" if np.isnan(value) else f"{value:.1f}" for value in percent]
        colour = BAR_COLOURS[place % len(BAR_COLOURS)]
        groups.append(Bars(f"{name}: mean {nan_mean(percent):.1f} %", percent, texts, colour))
    class_bars(groups, names, path, label="IoU in %")


def step_chart(curve: FloatArray, path: Path, *, label: str, mark: tuple[float, str]) -> None:
    """Draw values by step as a line with points, as PNG.

    Args:
        curve: ``[n, 2]`` of step and value.
        path: file to write.
        label: of the vertical axis.
        mark: a step to mark, and its text.
    """
    with chart(8.0, 3.4) as (figure, axes):
        axes.plot(*curve.T, color=BAR_COLOURS[0], linewidth=1.6, marker="o")
        for step, value in curve.tolist():
            at: dict[str, Any] = {"textcoords": "offset points", "ha": "center", "size": 8}
            axes.annotate(f"{value:.1f}", (step, value), (0, 7), c="0.2", **at)
        axes.axvline(mark[0], color="0.45", linewidth=1, linestyle=(0, (4, 3)), zorder=0)
        where: dict[str, Any] = {"xycoords": axes.get_xaxis_transform(), "size": 9, "ha": "right"}
        axes.annotate(mark[1], (mark[0], 0.03), (-5, 0), textcoords="offset points", **where)
        axes.set_xlim(0, 1.04 * curve[-1, 0])
        axes.set_ylim(0, 1.15 * max(1.0, float(curve[:, 1].max())))
        axes.set_xlabel("step", color="0.35")
        axes.set_ylabel(label, color="0.35")
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        save_chart(figure, path)


def curve_chart(
    curves: Mapping[str, FloatArray],
    *,
    size: tuple[float, float],
    marks: Sequence[tuple[float, str]] = (),
) -> bytes:
    """Draw curves by step, as SVG.

    Args:
        curves: ``[n, 2]`` of step and value by name, at most eight.
        size: width and height in inches of 96 pixels.
        marks: steps to mark, and their texts.
    """
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with chart(*size) as (figure, axes):
        for (name, curve), colour in zip(curves.items(), BAR_COLOURS, strict=False):
            axes.plot(*curve.T, color=colour, linewidth=1.6, label=name)
        top = axes.get_xaxis_transform()
        for step, text in marks:
            axes.axvline(step, color="0.45", linewidth=1, linestyle=(0, (4, 3)), zorder=0)
            look: dict[str, Any] = {"xycoords": top, "textcoords": "offset points", "va": "top"}
            axes.annotate(text, (step, 0.98), (5, 0), size=9, color="0.35", **look)
        axes.set_ylim(bottom=0)
        axes.set_xlabel("step", color="0.35")
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        if len(curves) > 1:
            figure.legend(loc="outside upper left", frameon=False, ncols=3)
        # Text is not converted to paths, and equal curves give equal ids.
        with rc_context({"svg.hashsalt": "carb", "svg.fonttype": "none"}):
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    return buffer.getvalue()
