"""Panels: rows of an image and its masks, with titles and a legend; contact sheets."""

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from pipeline.report.drawing import IGNORE_COLOUR, RgbArray
from pipeline.report.fonts import shorten_middle, shorten_start, text_font

T = TypeVar("T")
INK, PAPER, FAINT = (32, 33, 36), (255, 255, 255), (120, 124, 130)
PANEL_WIDTH, CELL_SIDE = 1400, 640  # at most, in pixels
PANELS = 4  # images per panel
LINE_COLUMNS = 5  # at most, so that each stays readable
SHOWN_SIDE = 1280  # larger images are reduced before drawing
GAP, TITLE_HEIGHT = 8, 30
LEGEND_WIDTH = 700  # minimum
SHEET_HEIGHT, LABEL_HEIGHT = 210, 24  # of a row of a contact sheet, and of the name below


class LegendItem(NamedTuple):
    """A legend entry: its text, and a colour sample ``[18, W, 3]`` uint8 RGB."""

    name: str
    sample: RgbArray


class PanelRow(NamedTuple):
    """The cells of one image, ``[H, W, 3]`` uint8 RGB each, and the title above them."""

    cells: Sequence[RgbArray]
    title: str = ""


def evenly_spaced(items: Sequence[T], count: int) -> list[T]:
    """At most ``count`` items, the first and the last among them, evenly spaced."""
    places = np.linspace(0, len(items) - 1, min(count, len(items))).round().astype(int)
    return [items[place] for place in places]


def downscale_for_panel(photo: Image.Image) -> tuple[RgbArray, int]:
    """The image at panel size, and the integer factor by which it was reduced.

    ``mask[::factor, ::factor]`` reduces a mask to the same size.
    """
    shrink = max(1, -(-max(photo.size) // SHOWN_SIDE))
    return np.asarray(photo.reduce(shrink)), shrink


def class_entries(names: Sequence[str], palette: RgbArray) -> list[LegendItem]:
    """The colour of each class, and of ignored pixels."""
    colours = [*map(tuple, palette.tolist()), IGNORE_COLOUR]
    return [
        LegendItem(name, _framed(np.full((18, 18, 3), colour, np.uint8)))
        for name, colour in zip([*names, "ignored"], colours, strict=True)
    ]


def class_legend(
    names: Sequence[str], palette: RgbArray, *, width: int = LEGEND_WIDTH
) -> Image.Image:
    """The colour and name of each class, as an image at least ``width`` pixels wide."""
    return _legend(class_entries(names, palette)[:-1], width)  # predictions ignore no pixel


def panel(
    rows: Sequence[PanelRow],
    *,
    titles: Sequence[str],
    legend: Sequence[Sequence[LegendItem]],
    heading: str = "",
) -> Image.Image:
    """Compose a panel: one row per image, its cells in lines of at most five, the legend below.

    The first cell of a row determines the size of all its cells: enlarged by an integer factor, or
    reduced to the largest size that fits the panel's width and a side of 640.

    Args:
        rows: the rows.
        titles: one per cell.
        legend: groups of legend entries.
        heading: title of the panel; may be empty.

    Raises:
        ValueError: there are no rows or titles, or the number of cells in a row differs.
    """
    lengths = [len(row.cells) for row in rows]
    if not titles or set(lengths) != {len(titles)}:
        raise ValueError(
            f"a panel needs rows of {len(titles) or 'some'} cells, one per title, got rows of "
            f"{lengths}"
        )
    num_lines = -(-len(titles) // LINE_COLUMNS)
    columns = -(-len(titles) // num_lines)
    width = min(CELL_SIDE, (PANEL_WIDTH - GAP) // columns - GAP)
    cells = [_cell_size(row.cells[0], width) for row in rows]
    width = max(cell[0] for cell in cells)
    parts = [_line_of_text(heading, GAP + columns * (width + GAP), 20)] if heading else []
    for number, (row, cell) in enumerate(zip(rows, cells, strict=True)):
        named = titles if num_lines > 1 or number == 0 else [""] * len(titles)
        parts.append(_panel_row(row, named, columns=columns, column_width=width, cell=cell))
    parts += [_legend(group, GAP + columns * (width + GAP)) for group in legend if group]
    return _stacked(parts)


def contact_sheet(pictures: Sequence[tuple[str, RgbArray]]) -> Image.Image:
    """Images of any size side by side in rows of equal height, their names below."""
    rows: list[list[tuple[str, Image.Image]]] = [[]]
    left = GAP
    for name, picture in pictures:
        width = round(picture.shape[1] * SHEET_HEIGHT / picture.shape[0])
        size = (max(1, min(width, PANEL_WIDTH - 2 * GAP)), SHEET_HEIGHT)
        if left + size[0] + GAP > PANEL_WIDTH and rows[-1]:
            rows.append([])
            left = GAP
        rows[-1].append((name, _fit(picture, size)))
        left += size[0] + GAP
    return _stacked([_sheet_row(row) for row in rows])


def _sheet_row(photos: Sequence[tuple[str, Image.Image]]) -> Image.Image:
    width = GAP + sum(photo.width + GAP for _, photo in photos)
    row, left = Image.new("RGB", (width, GAP + SHEET_HEIGHT + LABEL_HEIGHT), PAPER), GAP
    draw = ImageDraw.Draw(row)
    for name, photo in photos:
        row.paste(photo, (left, GAP))
        place = (left, GAP + SHEET_HEIGHT + LABEL_HEIGHT // 2)
        text = shorten_start(name, text_font(14), photo.width)
        draw.text(place, text, INK, text_font(14), anchor="lm")
        left += photo.width + GAP
    return row


def _panel_row(
    row: PanelRow,
    titles: Sequence[str],
    *,
    columns: int,
    column_width: int,
    cell: tuple[int, int],
) -> Image.Image:
    """The title of an image, and its cells in lines of ``columns`` with titles above."""
    total = GAP + columns * (column_width + GAP)
    parts = [_line_of_text(row.title, total, 16)] if row.title else []
    for start in range(0, len(titles), columns):
        part = slice(start, start + columns)
        top = TITLE_HEIGHT if any(titles) else 0
        line = Image.new("RGB", (total, top + cell[1] + GAP), PAPER)
        draw = ImageDraw.Draw(line)
        for column, (title, picture) in enumerate(zip(titles[part], row.cells[part], strict=True)):
            left = GAP + column * (column_width + GAP)
            text = shorten_start(title, text_font(18), column_width)
            middle = (left + column_width // 2, TITLE_HEIGHT // 2)
            draw.text(middle, text, INK, text_font(18), anchor="mm")
            line.paste(_fit(picture, cell), (left + (column_width - cell[0]) // 2, top))
        parts.append(line)
    return _stacked(parts)


def _cell_size(picture: RgbArray, limit: int) -> tuple[int, int]:
    """Width and height of a cell: enlarged by an integer factor, or reduced to the limits."""
    height, width = picture.shape[:2]
    share = min(limit / width, CELL_SIDE / height)
    if share >= 1:
        return width * int(share), height * int(share)
    return max(1, round(width * share)), max(1, round(height * share))


def _fit(picture: RgbArray, size: tuple[int, int]) -> Image.Image:
    """Resize to ``size`` (width, height), padded with white where the proportions differ."""
    image = Image.fromarray(picture)
    enlarged = image.width < size[0] and image.height < size[1]
    method = Image.Resampling.NEAREST if enlarged else Image.Resampling.BOX
    return ImageOps.pad(image, size, method, color=PAPER)


def _line_of_text(text: str, width: int, size: int) -> Image.Image:
    """One line of text, left-aligned."""
    line = Image.new("RGB", (width, size + 2 * GAP), PAPER)
    shown = shorten_start(text, text_font(size), width - 2 * GAP)
    ImageDraw.Draw(line).text((GAP, line.height // 2), shown, INK, text_font(size), anchor="lm")
    return line


def _legend(entries: Sequence[LegendItem], width: int) -> Image.Image:
    """Colour samples with their texts, in columns of equal width."""
    font, line = text_font(16), 28
    room = max(width, LEGEND_WIDTH) - 2 * GAP - 34
    samples = [entry.sample for entry in entries]
    names = [shorten_middle(name, font, room - sample.shape[1]) for name, sample in entries]
    texts = zip(names, samples, strict=True)
    column = max(sample.shape[1] + 8 + int(font.getlength(name)) for name, sample in texts) + 26
    num_columns = max(1, min(len(entries), (width - GAP) // column))
    num_lines = -(-len(entries) // num_columns)
    num_columns = -(-len(entries) // num_lines)  # lines of even length
    left = max(GAP, (width - num_columns * column) // 2)
    size = (max(width, left + num_columns * column), num_lines * line + 2 * GAP)
    sheet = Image.new("RGB", size, PAPER)
    draw = ImageDraw.Draw(sheet)
    for index, (name, sample) in enumerate(zip(names, samples, strict=True)):
        x, y = left + index % num_columns * column, GAP + index // num_columns * line
        sheet.paste(Image.fromarray(sample), (x, y))
        draw.text((x + sample.shape[1] + 8, y + 9), name, INK, font, anchor="lm")
    return sheet


def _framed(sample: RgbArray) -> RgbArray:
    """The sample in a thin frame, so that white is visible."""
    sample[[0, -1]] = sample[:, [0, -1]] = FAINT
    return sample


def _stacked(parts: Sequence[Image.Image]) -> Image.Image:
    """The parts below each other, left-aligned."""
    size = (max(part.width for part in parts), sum(part.height for part in parts))
    sheet, top = Image.new("RGB", size, PAPER), 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet
