"""HTML report of a run: one self-contained file with embedded images, without scripts.

All texts are in page.html.j2. Class names and values are user input, which jinja escapes.
"""

import base64
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image

from pipeline.config.carb import CarbParams
from pipeline.config.eval import PaletteName
from pipeline.report.charts import curve_chart
from pipeline.report.drawing import palette_of
from pipeline.report.results import (
    Curve,
    Metrics,
    RunResults,
    evaluated_folder,
    outputs_of,
    percent,
)
from pipeline.system.files import atomic_path
from pipeline.system.text import without_folders

TEMPLATE = "page.html.j2"
MAX_WIDTH = 1400  # pixels: the width of panels
UNCHANGED_BYTES = 120_000  # maximum size of an embedded PNG; larger ones become JPEG
JPEG_QUALITY = 75
CSS_DPI = 96


class EmbeddedImage(NamedTuple):
    """An image inside the page: ``data:`` URL, width and height in pixels."""

    source: str
    width: int
    height: int


def write_report(
    results: RunResults,
    out: Path,
    *,
    settings: Mapping[str, Any],
    carb: CarbParams,
    steps: int,
    local_views: bool,
    clip_of_drawings: bool,
    palette: PaletteName,
) -> None:
    """Write the report of a run atomically; equal results give equal bytes.

    Args:
        results: of all stages.
        out: file to write.
        settings: params.yaml as JSON values.
        carb: its section ``carb``.
        steps: of the training.
        local_views: whether training used local views.
        clip_of_drawings: whether photos were labelled by a CLIP that knows drawings only.
        palette: ``pictures.palette``.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "setting": _setting}
    warm_up, acts = carb.warmup_of(steps), carb.active_steps(steps) > 0
    marks = [(warm_up, "CARB starts")] if acts and warm_up > 0 else []
    sections = {name: part for name, part in settings.items() if isinstance(part, dict)}
    general = {name: value for name, value in settings.items() if name not in sections}
    page = environment.get_template(TEMPLATE).render(
        _tables(results, palette),
        steps=steps,
        carb=carb.acted(steps),
        carb_acts=acts,
        local_views=local_views,
        clip_of_drawings=clip_of_drawings,
        settings={"general": general, **sections},
        embed=lambda name: embed_png(results.folder / name),
        draw_curves=lambda *args: _embed_curves(results.curves, marks, *args),
    )
    with atomic_path(out) as draft:
        draft.write_text(page, "utf-8", newline="\n")


def _tables(results: RunResults, palette: PaletteName) -> dict[str, Any]:
    """The template's variables that depend on the results only."""
    levels = [
        {"split": split, "level": level, **metrics}
        for split in ("train", "val")
        for level, metrics in results.levels(split).items()
    ]
    return {
        "dataset": results.index.label_space.name,
        "classes": results.index.label_space.names,
        "splits": [*_splits(results)],
        "segmenter": results.segmenter,
        "levels": levels,
        "best": _best_level(results),
        "rows": [*_class_rows(results, palette)],
        "missing": results.missing.get("message"),
        "folder": evaluated_folder(results),
        "outputs": [(what, without_folders(path)) for what, path in outputs_of(results)],
    }


def _embed_curves(
    curves: Mapping[str, Curve],
    marks: Sequence[tuple[float, str]],
    titles: Mapping[str, str],
    width: float,
    height: float,
) -> EmbeddedImage | None:
    """A chart of the curves that exist, or None; width and height in inches."""
    drawn = {title: curves[name] for name, title in titles.items() if name in curves}
    if not drawn:
        return None
    svg = curve_chart(drawn, size=(width, height), marks=marks)
    pixels = (round(side * CSS_DPI) for side in (width, height))
    return EmbeddedImage(_data_url("image/svg+xml", svg), *pixels)


def embed_png(path: Path) -> EmbeddedImage | None:
    """A PNG for the page; None if the file is missing.

    Large files are converted to JPEG of at most 1400 pixels width.

    Raises:
        ValueError: the file is not a PNG, or damaged.
    """
    if not path.is_file():
        return None
    content = path.read_bytes()
    try:
        with Image.open(io.BytesIO(content), formats=("PNG",)) as opened:
            image = opened.convert("RGB")
    except (OSError, SyntaxError):  # Pillow raises both for damaged files
        raise ValueError(
            f"{path}: damaged PNG; run `dvc repro --force {path.parent.name}`"
        ) from None
    size = image.size
    if len(content) <= UNCHANGED_BYTES and image.width <= MAX_WIDTH:
        return EmbeddedImage(_data_url("image/png", content), *size)
    if image.width > MAX_WIDTH:
        height = max(1, round(image.height * MAX_WIDTH / image.width))
        image = image.resize((MAX_WIDTH, height), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=JPEG_QUALITY, subsampling=0)  # sharp mask edges
    return EmbeddedImage(_data_url("image/jpeg", buffer.getvalue()), *size)


def _data_url(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def _setting(value: Any) -> str:
    """A value of params.yaml as JSON, strings without quotes and absolute paths."""
    return without_folders(
        value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    )


def _splits(results: RunResults) -> Iterator[dict[str, Any]]:
    """One row per split: number of images, and their sizes."""
    for split in dict.fromkeys(photo.split for photo in results.index.photos):
        photos = results.index.of_split(split)
        sizes = sorted({photo.size for photo in photos}, key=lambda size: (size[0] * size[1], size))
        ends = dict.fromkeys((sizes[0], sizes[-1]))
        words = " to ".join(f"{width} x {height}" for height, width in ends)
        yield {"name": split, "photos": len(photos), "sizes": words, "distinct": len(sizes)}


def _best_level(results: RunResults) -> Metrics | None:
    """Metrics of the most accurate pseudo-masks, on validation images if these have human masks."""
    for split in ("val", "train"):
        level = results.best_level(split)
        if level is not None:
            return {"split": split, "level": level, **results.levels(split)[level]}
    return None


def _class_rows(results: RunResults, palette: PaletteName) -> Iterator[dict[str, Any]]:
    """One row per class: colour, share of training images, metrics."""
    scored = {row["class"]: row for row in results.per_class}
    frequency = {row["class"]: row for row in results.frequency}
    pseudo: Metrics = (_best_level(results) or {"IoU": {}})["IoU"]
    space = results.index.label_space
    colours = palette_of(palette, space.palette).tolist()
    for name, colour in zip(space.names, colours, strict=True):
        metrics = scored.get(name, {})
        yield {
            "name": name,
            "colour": "#{:02x}{:02x}{:02x}".format(*colour),
            "share": frequency.get(name, {}).get("share"),
            **{key: metrics.get(key) for key in ("IoU", "precision", "recall")},
            "pseudo": pseudo.get(name),
        }
