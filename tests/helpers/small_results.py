"""Made-up results of a run, with metrics computed by hand."""

from pathlib import Path

import numpy as np

from pipeline.report.drawing import save_png
from pipeline.scenes.classes import ClassInfo, LabelSpace
from pipeline.scenes.index import IndexedPhoto, SceneIndex
from pipeline.system.files import write_json, write_table

CLASSES = ("road", "<script>alert('x')</script>", "sky & sea")


def write_results(folder: Path, *, masks: bool = True, val: bool = True) -> None:
    """An index and all results below ``folder``; without human masks, or validation photos, what
    the stages leave then."""
    splits = ("train", "val") if val else ("train",)
    photos = [
        IndexedPhoto(f"{split}/{number}", split, f"{number}.png", (48, 64 + 16 * number), "0" * 64)
        for split in splits
        for number in range(3)
    ]
    infos = tuple(
        ClassInfo(name, (90 * place, 60, 200 - 90 * place), (name,))
        for place, name in enumerate(CLASSES)
    )
    SceneIndex(LabelSpace("folder", infos), photos).write(folder / "data/scenes.json")
    results = folder / "results"
    shares = [{"class": name, "photos": 3, "share": 1.0} for name in CLASSES]
    write_table(results / "prepare/image_labels.csv", shares)
    _write_picture(results / "prepare/photos.png", size=(40, 1200))
    _write_picture(results / "eval_pseudo/panels_train.png", size=(300, 1500))
    for name in ("total", "reliable", "weight", "reliable_fraction", "lr"):
        _write_curve(results / f"train/plots/metrics/{name}.tsv")
    _write_picture(results / "eval/training_previews.png", size=(20, 1100))
    _write_picture(results / "eval/panels.png", size=(60, 1100))
    if masks and val:
        _write_figures(results)
    write_json(results / "eval_pseudo/metrics.json", _pseudo_figures() if masks else {})


def _write_picture(path: Path, *, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    save_png(path, noise)


def _write_curve(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    points = "".join(f"{step}\t{1 / step}\n" for step in range(10, 610, 10))
    path.write_text(f"step\t{path.stem}\n{points}", "utf-8")


def _pseudo_figures() -> dict[str, object]:
    """The local level is the better one."""
    levels = {
        level: {"mIoU": miou, "pixel accuracy": 0.5, "IoU": dict.fromkeys(CLASSES, miou)}
        for level, miou in (("global", 0.25), ("local", 0.375))
    }
    return {"train": levels | {"regions": {}}, "val": levels | {"regions": {}}}


def _write_figures(results: Path) -> None:
    """Classes of 75, 0 and no percent."""
    values = [0.75, 0.0, float("nan")]
    rows = [
        {"class": name, "IoU": value, "precision": value, "recall": value}
        for name, value in zip(CLASSES, values, strict=True)
    ]
    write_table(results / "eval/per_class.csv", rows)
    regions = {
        "reliable": {"share": 0.75, "CLIP accuracy": 0.9, "segmenter accuracy": 0.9},
        "noisy": {"share": 0.25, "CLIP accuracy": 0.2, "segmenter accuracy": 0.5},
    }
    figures = {
        "mIoU": 0.4375,
        "pixel accuracy": 0.8125,
        "IoU": dict(zip(CLASSES, values, strict=True)),
        "regions": regions,
        "protocol": {"photos": 3, "image-level labels shown": False, "data": "folder, val"},
    }
    write_json(results / "eval/metrics.json", figures)
