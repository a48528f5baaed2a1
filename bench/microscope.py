"""Error analysis of pseudo-masks: by object size, by confusion, and upper bounds.

    dvc repro && python -m bench.microscope

It reads the outputs of `dvc repro` and human masks; training never uses its results.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
import typer
from scipy import ndimage

from pipeline.config.params import load_params
from pipeline.datasets import open_dataset
from pipeline.datasets.base import MaskReader, Scene, read_scene_mask
from pipeline.evaluation.segmenter import Metrics
from pipeline.evaluation.selection import annotated, listed, scenes_of, with_logits
from pipeline.metrics import confusion, iou, mean_iou
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.scenes.image_labels import ImageLabels, read_image_labels
from pipeline.store.reader import PseudoMaskStore, upsampled
from pipeline.system.command import command
from pipeline.system.files import atomic_path, write_table
from pipeline.system.outputs import outputs
from pipeline.system.progress import progress
from pipeline.system.text import table_cell

app = typer.Typer(add_completion=False)
log = logging.getLogger("carb")
REMOVED = 12  # confusions in the summary
# Size of an object -> largest share of the image.
SIZES = {"tiny": 0.001, "small": 0.01, "medium": 0.1, "large": 1.0}
AS_IT_IS, NO_LABELS = "as it is", "no image labels"
BOUNDS = (AS_IT_IS, NO_LABELS, "perfect labels", "best of two", "perfect boundaries")


@dataclass
class Findings:
    """Counts over images.

    Attributes:
        matrices: (level, bound) -> ``[C, C]`` int64, rows = mask.
        found: level -> ``[sizes, C, 2]`` int64: pixels of annotated objects by size and class, and
            the number of them where the pseudo-mask agrees.
        named: the same for objects of the pseudo-mask and the annotation.
        photo_iou: level -> key -> mean IoU of that image.
    """

    matrices: dict[tuple[str, str], np.ndarray] = field(default_factory=dict)
    found: dict[str, np.ndarray] = field(default_factory=dict)
    named: dict[str, np.ndarray] = field(default_factory=dict)
    photo_iou: dict[str, dict[str, float]] = field(default_factory=dict)


def objects(mask: np.ndarray) -> np.ndarray:
    """Number the 4-connected regions of equal class, the ignored class included.

    Args:
        mask: ``[H, W]`` classes.

    Returns:
        ``[H, W]`` int64 from 0.
    """
    numbers = np.zeros(mask.shape, dtype=np.int64)
    total = 0
    for one in np.unique(mask):
        regions, count = ndimage.label(mask == one)
        numbers[regions > 0] = regions[regions > 0] - 1 + total
        total += count
    return numbers


def size_class(numbers: np.ndarray) -> np.ndarray:
    """Index into ``SIZES`` of each pixel's object, ``[H, W]``."""
    share = np.bincount(numbers.ravel()) / numbers.size
    sizes: np.ndarray = np.searchsorted(list(SIZES.values()), share)[numbers]
    return sizes


def by_size(classes: np.ndarray, other: np.ndarray, valid: np.ndarray, count: int) -> np.ndarray:
    """Pixels by object size and class of one map, and the number where the other map agrees.

    Args:
        classes: ``[H, W]`` classes whose objects are measured.
        other: ``[H, W]`` classes.
        valid: ``[H, W]`` bool, pixels that count.
        count: number of classes.

    Returns:
        ``[sizes, C, 2]`` int64.
    """
    sizes = size_class(objects(classes))
    table = np.zeros((len(SIZES), count, 2), dtype=np.int64)
    for column, chosen in enumerate((valid, valid & (classes == other))):
        np.add.at(table[..., column], (sizes[chosen], classes[chosen]), 1)
    return table


def majority(numbers: np.ndarray, pred: np.ndarray, count: int) -> np.ndarray:
    """Assign to every object the majority class of its predicted pixels, ``[H, W]``."""
    votes = np.bincount(numbers.ravel() * count + pred.ravel(), minlength=count)
    votes = np.pad(votes, (0, -len(votes) % count)).reshape(-1, count)
    chosen: np.ndarray = votes.argmax(axis=1)[numbers]
    return chosen


def _bounded(
    logits: torch.Tensor, present: torch.Tensor, mask: np.ndarray
) -> dict[str, np.ndarray]:
    """The pseudo-mask as it is, and with one part made perfect."""
    count = len(logits)
    truth = torch.from_numpy(mask.astype(np.int64))
    shown = torch.zeros(count, dtype=torch.bool)
    shown[torch.from_numpy(np.unique(mask[mask != IGNORE_INDEX]).astype(np.int64))] = True
    absent = torch.full_like(logits, -torch.inf)
    labelled = torch.where(present[:, None, None], logits, absent)
    plain = labelled.argmax(dim=0)
    next_best = labelled.scatter(0, plain[None], -torch.inf).max(dim=0)
    second = torch.where(next_best.values > -torch.inf, next_best.indices, plain)
    return {
        AS_IT_IS: plain.numpy(),
        NO_LABELS: logits.argmax(dim=0).numpy(),
        "perfect labels": torch.where(shown[:, None, None], logits, absent).argmax(dim=0).numpy(),
        "best of two": torch.where(truth == second, second, plain).numpy(),
        "perfect boundaries": majority(objects(mask), plain.numpy(), count),
    }


def examine(
    store: PseudoMaskStore, scenes: Sequence[Scene], labels: ImageLabels, *, read_mask: MaskReader
) -> Findings:
    """Analyse the pseudo-masks of images that have human masks and image-level labels."""
    findings, count = Findings(), len(store.classes)
    for scene in progress(scenes, label="examine", total=len(scenes)):
        mask = read_scene_mask(scene, read_mask)
        valid = mask != IGNORE_INDEX
        present = torch.from_numpy(labels[scene.key])
        for level in store.levels:
            grid = torch.from_numpy(store.read(scene.key, level))
            logits = upsampled(grid, (mask.shape[0], mask.shape[1]))
            maps = _bounded(logits, present, mask)
            for bound, pred in maps.items():
                one = confusion(pred, mask, count)
                key = (level, bound)
                findings.matrices[key] = findings.matrices.get(key, 0) + one
                if bound == AS_IT_IS:
                    findings.photo_iou.setdefault(level, {})[scene.key] = mean_iou(one)
            pred = maps[AS_IT_IS]
            found = by_size(mask, pred, valid, count)
            named = by_size(pred, mask, valid, count)
            findings.found[level] = findings.found.get(level, 0) + found
            findings.named[level] = findings.named.get(level, 0) + named
    return findings


def size_rows(findings: Findings, classes: Sequence[str]) -> list[Metrics]:
    """One row per level, class and size: share of the class's pixels, recall and precision."""
    rows = []
    for level, found in findings.found.items():
        named = findings.named[level]
        for place, name in enumerate(classes):
            for row, size in enumerate(SIZES):
                (pixels, hit), (said, right) = found[row, place], named[row, place]
                rows.append(
                    {
                        "level": level,
                        "class": name,
                        "object size": size,
                        "share of class": pixels / (found[:, place, 0].sum() or np.nan),
                        "recall": hit / (pixels or np.nan),
                        "precision": right / (said or np.nan),
                    }
                )
    return rows


def bound_rows(findings: Findings, classes: Sequence[str]) -> list[Metrics]:
    """One row per level and bound: mIoU and the IoU of each class."""
    return [
        {"level": level, "bound": bound, "mIoU": mean_iou(matrix)}
        | dict(zip(classes, iou(matrix).tolist(), strict=True))
        for (level, bound), matrix in findings.matrices.items()
    ]


def removed_rows(findings: Findings, level: str, classes: Sequence[str]) -> list[Metrics]:
    """Confusions that image-level labels remove, largest first, as shares of all pixels."""
    without = findings.matrices[level, NO_LABELS]
    labelled = findings.matrices[level, AS_IT_IS]
    total = without.sum()
    rows = [
        {
            "mask": classes[row],
            "taken for": classes[column],
            "without labels": without[row, column] / total,
            "with labels": labelled[row, column] / total,
        }
        for row, column in np.ndindex(without.shape)
        if row != column
    ]
    return sorted(rows, key=lambda row: row["with labels"] - row["without labels"])


def image_rows(findings: Findings) -> list[Metrics]:
    """One row per image, lowest first: mean IoU of its pseudo-mask on each level."""
    first, *_ = findings.photo_iou.values()
    return [
        {"image": key} | {level: iou_of[key] for level, iou_of in findings.photo_iou.items()}
        for key in sorted(first, key=lambda key: first[key])
    ]


def summary(findings: Findings, classes: Sequence[str], level: str) -> str:
    """Bounds, and confusions that labels remove, as Markdown."""
    table = {(row["level"], row["bound"]): row["mIoU"] for row in bound_rows(findings, classes)}
    levels = list(dict.fromkeys(level for level, _ in table))
    lines = ["| level | " + " | ".join(BOUNDS) + " |", "|---" * (len(BOUNDS) + 1) + "|"]
    lines += [
        f"| {one} | " + " | ".join(f"{100 * table[one, bound]:.1f}" for bound in BOUNDS) + " |"
        for one in levels
    ]
    removed = [
        row
        for row in removed_rows(findings, level, classes)[:REMOVED]
        if row["with labels"] < row["without labels"]
    ]
    if not removed:
        return "\n".join([*lines, "", "Image-level labels remove no confusion.", ""])
    lines += ["", "| mask | taken for | without labels | with |", "|---|---|---|---|"]
    lines += [
        f"| {table_cell(row['mask'])} | {table_cell(row['taken for'])} "
        f"| {100 * row['without labels']:.2f} | {100 * row['with labels']:.2f} |"
        for row in removed
    ]
    return "\n".join(lines) + "\n"


@app.command()
@command
def main(
    split: Annotated[str, typer.Option(help="Split of the images to analyse.")] = "val",
    out: Annotated[Path, typer.Option(help="Folder to write.")] = Path("scratch/microscope"),
    data: Annotated[
        Path, typer.Option(help="Folder with the outputs of prepare and pseudo.")
    ] = Path("data"),
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
) -> None:
    """Analyse errors of pseudo-masks by level, class and object size; compute upper bounds."""
    settings, store = load_params(params), PseudoMaskStore.open(data / "masks.zarr")
    dataset = open_dataset(settings.dataset.name, settings.dataset.root)
    if store.classes != dataset.label_space.names:
        raise ValueError(f"{store.path}: other classes than {dataset.root}; run `dvc repro`")
    labels = read_image_labels(data / "image_labels.csv", store.classes)
    scenes = [scene for scene in annotated(scenes_of(dataset, split)) if scene.key in labels]
    if not scenes:
        raise ValueError(f"--split {split}: no image has both a human mask and image-level labels")
    if split == "val" and settings.eval.photos is not None:
        scenes = listed(scenes, Path(settings.eval.photos))
    written = outputs("microscope", folders={"--out": out})
    findings = examine(store, with_logits(scenes, store), labels, read_mask=dataset.read_mask)
    text = summary(findings, store.classes, store.global_level)
    with written, atomic_path(out) as draft:
        draft.mkdir()
        write_table(draft / "sizes.csv", size_rows(findings, store.classes))
        write_table(draft / "bounds.csv", bound_rows(findings, store.classes))
        write_table(
            draft / "labels_remove.csv", removed_rows(findings, store.global_level, store.classes)
        )
        write_table(draft / "images.csv", image_rows(findings))
        (draft / "summary.md").write_text(text, "utf-8")
    log.info("%s", text)


if __name__ == "__main__":
    app()
