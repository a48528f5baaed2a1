"""The report of a run: one HTML file that holds everything itself, to read, print and mail.

It asks for nothing from elsewhere and runs no script. Class names and values are other people's
text: the template engine escapes all of it.
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.config.params import Params
from pipeline.report.charts import EmbeddedImage, carried, curve_chart
from pipeline.report.palettes import palette_of
from pipeline.report.results import Metrics, RunResults, percent
from pipeline.report.summary import places
from pipeline.system.files import atomic_path
from pipeline.system.text import without_folders

TEMPLATE = "page.html.j2"
PREVIEWS = 6  # pictures of how the predictions come about, at most
LOSSES = {
    "total": "total",
    "reliable": "reliable region",
    "noisy": "noisy region",
    "local_reliable": "reliable, local view",
    "local_noisy": "noisy, local view",
}
TRAIN_PANELS, VAL_PANELS = "eval_pseudo/panels_train.png", "eval_pseudo/panels_val.png"
CHARTS = ("class_frequency", "sizes", "iou", "iou_val", "iou_train")  # the others are panels
# File below the results folder: what it shows, what to look at.
DATA_PICTURES = {
    "prepare/photos.png": ("A sheet of photos", "A few of the training photos."),
    "prepare/class_frequency.png": (
        "Bars: how many photos hold each class",
        "How many photos hold each class, by their image-level labels.",
    ),
    "prepare/sizes.png": ("Sizes of the photos", "Sizes of the photos, in pixels."),
}
PSEUDO_PICTURES = {
    "pseudo/panels.png": (
        "Rows of photos with what CLIP found in them",
        "Before image-level labels: what CLIP finds when all classes compete, what the local level "
        "changes, and how sure CLIP is.",
    ),
    VAL_PANELS: (
        "Rows of validation photos with the pseudo-masks of each level and the human mask",
        "With image-level labels: the pseudo-masks of validation photos beside the human mask.",
    ),
    TRAIN_PANELS: (
        "Rows of training photos with the pseudo-masks of each level",
        "With image-level labels: pseudo-masks as the segmenter learned from them.",
    ),
    "eval_pseudo/iou_val.png": (
        "Bars: IoU of the pseudo-masks of each level, by class",
        "IoU of the pseudo-masks by class and level, on the validation photos.",
    ),
    "eval_pseudo/iou_train.png": (
        "Bars: IoU of the pseudo-masks of each level on the training photos, by class",
        "The same on the training photos.",
    ),
}
PANELS = {
    "eval/panels_best.png": (
        "Photos on which the segmenter does best",
        "Best: the validation photos with the highest mean IoU.",
    ),
    "eval/panels_median.png": (
        "Photos on which the segmenter does as usual",
        "Median: what to expect of a photo.",
    ),
    "eval/panels_worst.png": (
        "Photos on which the segmenter does worst",
        "Worst: the validation photos with the lowest mean IoU.",
    ),
    "eval/panels.png": (
        "Rows of photos, pseudo-masks and predictions",
        "Photos, the pseudo-masks of each level, and the segmenter's answers.",
    ),
}
CLASS_PICTURES = {
    "eval/iou.png": (
        "Bars: IoU of segmenter and pseudo-masks, by class",
        "IoU by class: the segmenter beside the pseudo-masks.",
    ),
    "eval/confusion.png": (
        "Confusion matrix of the segmenter",
        "Where the pixels of each class went, in percent of the class.",
    ),
}


def write_report(results: RunResults, settings: Params, out: Path) -> None:
    """Write the report of a run, whole or not at all; the same results give the same bytes.

    Args:
        results: what the stages left.
        settings: the parameters of the run.
        out: file to write.
    """
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["percent"] = percent
    page = environment.get_template(TEMPLATE).render(_content(results, settings))
    with atomic_path(out) as draft:
        draft.write_text(page, "utf-8", newline="\n")


def _content(results: RunResults, settings: Params) -> dict[str, Any]:
    """Everything that the template shows."""
    pseudo_pictures = dict(PSEUDO_PICTURES)
    if (results.folder / VAL_PANELS).is_file():  # these show the same, on other photos
        del pseudo_pictures[TRAIN_PANELS]
    return {
        "dataset": results.index.label_space.name,
        "steps": settings.train.steps,
        "carb": settings.carb.acted(settings.train.steps),
        "carb_steps": settings.carb.active_steps(settings.train.steps),
        "local_views": settings.train.local_term and len(settings.clip.levels) > 1,
        "classes": results.index.label_space.names,
        "splits": [*_splits(results)],
        "segmenter": results.segmenter,
        "levels": [*_levels(results)],
        "best": _best(results),
        "regions": results.segmenter.get("regions", {}),
        "protocol": results.segmenter.get("protocol", {}),
        "rows": [*_class_rows(results, settings)],
        "settings": {name: dict(rows) for name, rows in _sections(settings)},
        "curves": _curves(results, settings),
        "previews": _previews(results),
        "places": [place._replace(path=without_folders(place.path)) for place in places(results)],
        **{
            name: _pictures(results, wanted)
            for name, wanted in (
                ("data_pictures", DATA_PICTURES),
                ("pseudo_pictures", pseudo_pictures),
                ("panels", PANELS),
                ("class_pictures", CLASS_PICTURES),
            )
        },
    }


def _pictures(results: RunResults, wanted: Mapping[str, tuple[str, str]]) -> list[EmbeddedImage]:
    """Those pictures that are there."""
    return [
        carried(path, alt=alt, caption=caption, chart=path.stem in CHARTS)
        for name, (alt, caption) in wanted.items()
        if (path := results.folder / name).is_file()
    ]


def _splits(results: RunResults) -> Iterator[dict[str, Any]]:
    """A row a split: how many photos, and their sizes."""
    for split in dict.fromkeys(photo.split for photo in results.index.photos):
        photos = results.index.of_split(split)
        sizes = sorted({photo.size for photo in photos}, key=lambda size: (size[0] * size[1], size))
        words = " to ".join(
            f"{width} x {height}" for height, width in dict.fromkeys((sizes[0], sizes[-1]))
        )
        yield {"name": split, "photos": len(photos), "sizes": words, "distinct": len(sizes)}


def _levels(results: RunResults) -> Iterator[dict[str, Any]]:
    """A row a level of the pseudo-masks that is scored, by split."""
    for split in ("train", "val"):
        for level, figures in results.levels(split).items():
            yield {"split": split, "level": level, **figures}


def _best(results: RunResults) -> dict[str, Any] | None:
    """The most accurate pseudo-masks, on validation photos where those have human masks."""
    for split in ("val", "train"):
        level = results.best_level(split)
        if level is not None:
            return {"split": split, "level": level, **results.levels(split)[level]}
    return None


def _class_rows(results: RunResults, settings: Params) -> Iterator[dict[str, Any]]:
    """A row a class: its colour, share of the photos, and figures of both networks."""
    scored = {row["class"]: row for row in results.per_class}
    frequency = {row["class"]: row for row in results.frequency}
    best = _best(results)
    pseudo: Metrics = best["IoU"] if best else {}
    space = results.index.label_space
    colours = palette_of(settings.pictures.palette, space.palette).tolist()
    for name, colour in zip(space.names, colours, strict=True):
        figures = scored.get(name, {})
        yield {
            "name": name,
            "colour": "#{:02x}{:02x}{:02x}".format(*colour),
            "share": frequency.get(name, {}).get("share"),
            **{key: figures.get(key) for key in ("IoU", "precision", "recall")},
            "pseudo": pseudo.get(name),
        }


def _sections(settings: Params) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """The settings by section: name within it, and value."""
    content = settings.model_dump(mode="json")
    loose = {name: value for name, value in content.items() if not isinstance(value, dict)}
    yield "general", [*_flat(loose)]
    for section, values in content.items():
        if section not in loose:
            yield section, [*_flat(values)]


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Dotted names and values as a person writes them."""
    for name, value in values.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _written(value)


def _written(value: Any) -> str:
    """A value as params.yaml has it, but for words in the place of YAML's and absolute paths."""
    if isinstance(value, list) and value:
        return f"[{', '.join(map(_written, value))}]"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "none" if value in (None, {}, [], "") else without_folders(str(value))


def _curves(results: RunResults, settings: Params) -> list[EmbeddedImage]:
    """How training went: losses, what CARB did, learning rate."""
    curves, made = results.curves, []
    warm_up = settings.carb.warmup_of(settings.train.steps)
    acts = settings.carb.active_steps(settings.train.steps) > 0
    marks = [(warm_up, "CARB acts")] if acts and warm_up > 0 else []
    plain = "During the warm-up" if acts else "CARB did not act:"
    losses = {title: curves[name] for name, title in LOSSES.items() if name in curves}
    if losses:
        made.append(
            curve_chart(
                losses,
                size=(9.6, 4.0),
                alt="Curves of the loss and its terms over the steps",
                caption=f"The loss and its terms. {plain} nothing is split: the plain terms stand "
                "under “reliable”.",
                marks=marks,
            )
        )
    for name, alt, caption in (
        (
            "weight",
            "Curve of lambda over the steps",
            "Lambda: the weight of what is noisy, against 1 for what is reliable.",
        ),
        (
            "reliable_fraction",
            "Curve of the reliable share of the pixels over the steps",
            "Share of the pixels that are reliable: segmenter and CLIP agree.",
        ),
        ("lr", "Curve of the learning rate over the steps", "The learning rate."),
    ):
        if name in curves:
            one = {name: curves[name]}
            made.append(curve_chart(one, size=(4.2, 2.9), alt=alt, caption=caption, marks=marks))
    return made


def _previews(results: RunResults) -> list[EmbeddedImage]:
    """A few moments of training, evenly spread, the last among them."""
    found = results.pictures("train/plots/images/preview/*.png")
    count = min(PREVIEWS, len(found))
    chosen = [found[len(found) * (place + 1) // count - 1] for place in range(count)]
    return [
        carried(
            path,
            alt=f"Photos, pseudo-masks and predictions after {int(path.stem)} steps",
            caption=f"After {int(path.stem)} steps.",
        )
        for path in chosen
    ]
