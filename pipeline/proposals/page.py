"""Proposed labels to look at: a sheet a class, and a page to correct them on."""

import base64
import io
import json
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw

from pipeline.proposals.propose import THUMBNAIL, Proposal
from pipeline.report.charts import BAR_COLOURS
from pipeline.report.fonts import shorten_middle, shorten_start, text_font
from pipeline.report.panels import FAINT, GAP, INK, PAPER
from pipeline.scenes.classes import LabelSpace
from pipeline.scenes.image_folder import PAGE
from pipeline.scenes.image_io import PHOTO_ENDINGS
from pipeline.system.files import atomic_path, fingerprint

NEAR = 0.1  # photos whose confidence is so close to the threshold are marked
COLUMNS, MOST = 7, 98  # of a sheet; more photos than a person looks at
CAPTION, FRAME = 24, 4
TAGGED, UNSURE = BAR_COLOURS[:2]
SHADE = (233, 241, 247)  # behind photos that are tagged
CONTENT = '"the page\'s content"'


def write_sheets(out: Path, found: list[Proposal], space: LabelSpace, *, threshold: float) -> None:
    """Write a sheet a class and the page, all of them or none.

    Args:
        out: folder to write; an earlier one is replaced.
        found: what CLIP says of each photo.
        space: the classes.
        threshold: a class is proposed from this confidence on.
    """
    with atomic_path(out) as draft:
        draft.mkdir()
        for place, name in enumerate(sheet_names(space.names)):
            sheet = class_sheet(found, place, space.names[place], threshold=threshold)
            sheet.quantize(256, dither=Image.Dither.NONE).save(draft / f"{name}.png")
        (draft / PAGE).write_text(correction_page(found, space, threshold=threshold), "utf-8")


def sheet_names(classes: list[str]) -> list[str]:
    """Names of files for the classes, which may hold any characters."""
    names = [re.sub(r"[^\w-]+", "-", name).strip("-") or "class" for name in classes]
    lower = [name.lower() for name in names]
    return [
        name if lower.count(name.lower()) == 1 else f"{name}-{place}"
        for place, name in enumerate(names)
    ]


def class_sheet(found: list[Proposal], place: int, name: str, *, threshold: float) -> Image.Image:
    """The photos by falling confidence in one class, a line where the proposals end.

    Of many photos those nearest to the threshold are shown: among them the mistakes are.
    """
    ranked = sorted(found, key=lambda each: -each.confidence[place])
    tagged = sum(each.confidence[place] >= threshold for each in ranked)
    first = max(0, min(int(tagged) - MOST // 2, len(ranked) - MOST))
    shown = ranked[first : first + MOST]
    above = [each for each in shown if each.confidence[place] >= threshold]
    below = shown[len(above) :]
    title = f"{name}: proposed for {tagged} of {len(ranked)} photos"
    if len(shown) < len(ranked):
        title += f"; here the {len(shown)} nearest to the threshold"
    parts = [_bar(title, 18)]
    parts += [_grid(above, place, threshold)] if above else []
    parts += [_bar(f"not proposed: confidence below {threshold:g}", 15)] if below else []
    parts += [_grid(below, place, threshold)] if below else []
    sheet = Image.new("RGB", (parts[0].width, sum(part.height for part in parts)), PAPER)
    top = 0
    for part in parts:
        sheet.paste(part, (0, top))
        top += part.height
    return sheet


def _bar(text: str, size: int) -> Image.Image:
    """A line of text above photos."""
    bar = Image.new("RGB", (COLUMNS * (THUMBNAIL[0] + GAP) + GAP, 40), PAPER)
    draw = ImageDraw.Draw(bar)
    draw.line((GAP, 2, bar.width - GAP, 2), INK, 2)
    font = text_font(size)
    draw.text((GAP, 22), shorten_middle(text, font, bar.width - 2 * GAP), INK, font, anchor="lm")
    return bar


def _grid(shown: list[Proposal], place: int, threshold: float) -> Image.Image:
    """Photos with their confidence and name below each."""
    height = max(each.thumbnail.height for each in shown)  # wide photos need no room for tall ones
    line = height + CAPTION + GAP
    rows = -(-len(shown) // COLUMNS)
    grid = Image.new("RGB", (COLUMNS * (THUMBNAIL[0] + GAP) + GAP, rows * line + GAP), PAPER)
    draw = ImageDraw.Draw(grid)
    for number, each in enumerate(shown):
        left = GAP + number % COLUMNS * (THUMBNAIL[0] + GAP)
        top = GAP + number // COLUMNS * line
        cell = (left, top, left + THUMBNAIL[0] - 1, top + height + CAPTION - 1)
        value, photo = each.confidence[place], each.thumbnail
        tagged = bool(value >= threshold)
        draw.rectangle(cell, fill=SHADE if tagged else PAPER)
        grid.paste(photo, (left + (THUMBNAIL[0] - photo.width) // 2, top + height - photo.height))
        draw.rectangle(cell, outline=TAGGED if tagged else FAINT, width=FRAME if tagged else 1)
        start = (left + 2 * FRAME, top + height + CAPTION // 2 - 2)
        if abs(value - threshold) < NEAR:
            draw.rectangle((start[0] - 3, start[1] - 8, start[0] + 29, start[1] + 8), UNSURE)
        draw.text(start, _cut(f"{value:.2f}  {each.photo}"), INK, text_font(12), anchor="lm")
    return grid


def _cut(text: str) -> str:
    """A caption that fits below a photo; of a long path the end tells photos apart."""
    number, name = text.split("  ", 1)
    font, start = text_font(12), f"{number}  "
    return start + shorten_start(name, font, THUMBNAIL[0] - 4 * FRAME - int(font.getlength(start)))


def correction_page(found: list[Proposal], space: LabelSpace, *, threshold: float) -> str:
    """One HTML file that needs nothing else: a click on a photo changes its tag."""
    content: dict[str, Any] = {
        "classes": space.names,
        "colours": ["#" + bytes(info.colour).hex() for info in space.classes],
        "threshold": threshold,
        "near": NEAR,
        "endings": PHOTO_ENDINGS,
        "photos": [
            {
                "name": each.photo,
                "picture": _data_url(each.thumbnail),
                "confidence": [round(float(value), 3) for value in each.confidence],
                "tags": [bool(value >= threshold) for value in each.confidence],
            }
            for each in found
        ],
    }
    # By this the browser knows the page again whose corrections it keeps.
    content["id"] = fingerprint(content)[:16]
    # A name may hold the sign that would end the script.
    text = json.dumps(content, ensure_ascii=False).replace("<", "\\u003c")
    return files("pipeline.proposals").joinpath(PAGE).read_text("utf-8").replace(CONTENT, text)


def _data_url(picture: Image.Image) -> str:
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=72)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
