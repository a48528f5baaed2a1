"""Pictures as a page carries them within itself: small enough to mail, the same bytes each time."""

import base64
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from pipeline.report.drawing import BAR_COLOURS, chart

WIDEST = 1400  # pixels: as wide as panels are drawn
AS_IT_IS = 120_000  # bytes of a PNG that is carried unchanged
TARGET = 300_000  # bytes that a larger one should have at most
QUALITIES = (88, 75, 60)  # of JPEG, tried in this order


@dataclass(frozen=True)
class EmbeddedImage:
    """A picture of a page.

    Attributes:
        source: the picture itself, as a ``data:`` address.
        size: ``(width, height)`` in pixels.
        alt: what it shows, for who cannot see it.
        caption: what to look at in it.
        chart: whether it is readable at half the width of the page.
    """

    source: str
    size: tuple[int, int]
    alt: str
    caption: str
    chart: bool


def carried(path: Path, *, alt: str, caption: str, chart: bool = False) -> EmbeddedImage:
    """A picture of a stage, reduced to what a page needs.

    Small PNG stay as they are, others become JPEG, at most 1400 pixels wide.

    Raises:
        ValueError: the file is no picture.
    """
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as opened:
            picture = opened.convert("RGB")
    except (OSError, SyntaxError):  # Pillow's words for what is damaged
        raise ValueError(f"{path}: is no whole PNG; run `dvc repro --force`") from None
    small = len(content) <= AS_IT_IS and picture.width <= WIDEST
    source = _address("image/png", content) if small else _address("image/jpeg", _jpeg(picture))
    return EmbeddedImage(source, picture.size, alt, caption, chart)


def _jpeg(picture: Image.Image) -> bytes:
    """JPEG of the best quality that is small enough; full colour at the edges of masks."""
    if picture.width > WIDEST:
        height = max(1, round(picture.height * WIDEST / picture.width))
        picture = picture.resize((WIDEST, height), Image.Resampling.LANCZOS)
    written = b""
    for quality in QUALITIES:
        buffer = io.BytesIO()
        picture.save(buffer, format="JPEG", quality=quality, subsampling=0)
        written = buffer.getvalue()
        if len(written) <= TARGET:
            break
    return written


def _address(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def curve_chart(
    curves: Mapping[str, npt.NDArray[np.float64]],
    *,
    size: tuple[float, float],
    alt: str,
    caption: str,
    marks: Sequence[tuple[float, str]] = (),
) -> EmbeddedImage:
    """Curves over the steps as a drawing (SVG).

    Args:
        curves: what is compared (at most six), ``[n, 2]`` of step and value.
        size: width and height in inches.
        alt: what it shows, for who cannot see it.
        caption: what to look at in it.
        marks: steps at which something changes, and what.
    """
    from matplotlib import rc_context

    buffer = io.BytesIO()
    with chart(*size) as (figure, axes):
        for (name, curve), colour in zip(curves.items(), BAR_COLOURS, strict=False):
            axes.plot(*curve.T, color=colour, linewidth=1.6, label=name)
        for step, text in marks:
            axes.axvline(step, color="0.45", linewidth=1, linestyle=(0, (4, 3)), zorder=0)
            axes.annotate(
                text,
                (step, 0.98),
                (5, 0),
                xycoords=axes.get_xaxis_transform(),
                textcoords="offset points",
                va="top",
                size=9,
                color="0.35",
            )
        axes.set_ylim(bottom=0)
        axes.set_xlabel("step", color="0.35")
        axes.grid(color="0.9")
        axes.set_axisbelow(True)
        if len(curves) > 1:
            figure.legend(loc="outside upper left", frameon=False, ncols=3)
        # Text stays text, and what is named is named the same each time.
        with rc_context({"svg.hashsalt": "carb", "svg.fonttype": "none"}):
            figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        width, height = (round(side * 96) for side in size)
    drawing = _address("image/svg+xml", buffer.getvalue())
    return EmbeddedImage(drawing, (width, height), alt, caption, chart=True)
