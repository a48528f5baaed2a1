"""How good proposed image-level labels are, measured where masks tell the truth.

    dvc repro draw && python -m bench.proposals

Each measure of "this class is in the photo" is ranked (average precision), and cut at the threshold
that suits the training photos best (F1 over all tags); the figures are those of the validation
photos. Then pseudo-masks with true tags, with proposed ones and with all classes.
"""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
import torch
import typer
from torch import Tensor

from pipeline.clip.dense import DenseClip, load_clip
from pipeline.clip.prompts import resolve_templates
from pipeline.clip.windows import cover_features, magnified
from pipeline.config.params import LevelParams, load_params
from pipeline.datasets import open_dataset
from pipeline.datasets.base import Dataset, read_annotated
from pipeline.metrics import confusion, mean_iou
from pipeline.proposals.propose import photo_windows, temperature, window_embeddings
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.store.masks import hard_mask
from pipeline.system.command import command
from pipeline.system.progress import prefetch_in_threads, progress

app = typer.Typer(add_completion=False)
log = logging.getLogger("carb")
CONTRAST = [["street"], ["scene"], ["photo"], ["background"]]  # what is in every photo
FIRST, LAST = "global", "local"
OURS = "best window, softmax (ours)"
THRESHOLDS = (0.75, 0.5, 0.25, 0.1, 0.0)


class Seen(NamedTuple):
    """What CLIP sees of a photo, and what is true of it.

    Attributes:
        present: ``[C]`` bool, from the mask.
        mask: ``[H, W]`` uint8.
        windows: similarity of each window to classes and contrast, ``[n, C + 4]``; the first is the
            photo as a whole.
        patches: similarity of the patches of each level, ``[C, h, w]``.
    """

    present: np.ndarray
    mask: np.ndarray
    windows: Tensor
    patches: dict[str, Tensor]


@torch.no_grad()
def look(
    dataset: Dataset,
    split: str,
    clip: DenseClip,
    text: Tensor,
    *,
    levels: dict[str, LevelParams],
    min_pixels: int,
    every: int,
) -> list[Seen]:
    """Show each photo of a split to CLIP; ``text`` ends with the four contrasts."""
    classes = text[: -len(CONTRAST)]
    seen = []
    scenes = dataset.scenes(split)[::every]
    read = prefetch_in_threads(scenes, lambda scene: read_annotated(scene, dataset.read_mask))
    for image, mask in progress(read, label=split, total=len(scenes)):
        counts = np.bincount(mask[mask != IGNORE_INDEX], minlength=len(classes))
        windows = window_embeddings(clip, photo_windows(image, clip, list(levels.values())))
        patches = {
            name: cover_features(
                magnified(image, level, patch_size=clip.patch_size),
                level,
                clip,
                lambda shown: clip.patch_logits(shown, classes),
            )
            for name, level in levels.items()
        }
        seen.append(Seen(counts >= min_pixels, mask, windows @ text.T, patches))
    return seen


def _patch_top(share: float, level: str, scale: float) -> Callable[[Seen], Tensor]:
    def measure(seen: Seen) -> Tensor:
        probs = (scale * seen.patches[level].flatten(1)).softmax(dim=0)  # [C, n]
        return probs.topk(max(1, round(share * probs.shape[1])), dim=1).values.mean(dim=1)

    return measure


def measures(scale: float) -> dict[str, Callable[[Seen], Tensor]]:
    """Ways to say how surely a class is in a photo, ``[C]`` each."""
    few = len(CONTRAST)

    def windows(seen: Seen) -> Tensor:
        return (scale * seen.windows[:, :-few]).softmax(dim=1).amax(dim=0)

    def against(similar: Tensor) -> Tensor:
        return (scale * (similar[:, :-few] - similar[:, -few:].mean(dim=1, keepdim=True))).sigmoid()

    return {
        "whole photo, softmax": lambda seen: (scale * seen.windows[0, :-few]).softmax(dim=0),
        "whole photo, against contrast": lambda seen: against(seen.windows[:1])[0],
        "patches, global level, best": _patch_top(0, FIRST, scale),
        "patches, global level, mean of best 5 %": _patch_top(0.05, FIRST, scale),
        "patches, local level, best": _patch_top(0, LAST, scale),
        "patches, local level, mean of best 1 %": _patch_top(0.01, LAST, scale),
        "patches, local level, mean of best 5 %": _patch_top(0.05, LAST, scale),
        "best window, against contrast": lambda seen: against(seen.windows).amax(dim=0),
        OURS: windows,
    }


def average_precision(values: np.ndarray, present: np.ndarray) -> float:
    """Mean precision at each photo that has the class; NaN if none has."""
    ranked = present[np.argsort(-values, kind="stable")]
    precision = np.cumsum(ranked) / np.arange(1, len(ranked) + 1)
    return float(precision[ranked].mean()) if ranked.any() else float("nan")


def f1(tagged: np.ndarray, present: np.ndarray) -> float:
    """F1 over all tags of all photos."""
    return float(2 * (tagged & present).sum() / max(1, tagged.sum() + present.sum()))


def best_threshold(values: np.ndarray, present: np.ndarray) -> float:
    """The threshold with the best F1."""
    candidates = np.unique(np.quantile(values, np.linspace(0, 1, 200)))
    return float(max(candidates, key=lambda threshold: f1(values >= threshold, present)))


def pseudo_miou(seen: list[Seen], level: str, labels: np.ndarray) -> float:
    """mIoU of the pseudo-masks that image-level labels ``[N, C]`` bool give."""
    count = labels.shape[1]
    total = np.zeros((count, count), dtype=np.int64)
    for photo, row in zip(seen, labels, strict=True):
        height, width = photo.mask.shape
        guess = hard_mask(photo.patches[level], torch.from_numpy(row), (height, width))
        total += confusion(guess.numpy(), photo.mask, count)
    return 100 * mean_iou(total)


def _print(name: str, *cells: str | float) -> None:
    """A line of a table in Markdown."""
    written = [cell if isinstance(cell, str) else f"{cell:.1f}" for cell in cells]
    print("|", " | ".join([name, *written]), "|")


def _print_measures(train: list[Seen], val: list[Seen], scale: float) -> None:
    known, truth = (np.stack([seen.present for seen in part]) for part in (train, val))
    _print("measure", "mAP train", "mAP val", "threshold", "F1 val", "wrong tags a photo")
    _print("---", *["---"] * 5)
    for name, measure in measures(scale).items():
        first, last = (np.stack([measure(seen).numpy() for seen in part]) for part in (train, val))
        threshold = best_threshold(first, known)
        tags = last >= threshold
        means = [_mean_precision(first, known), _mean_precision(last, truth)]
        _print(name, *means, f"{threshold:.3f}", 100 * f1(tags, truth), _wrong(tags, truth))
    usual = np.broadcast_to(known.mean(axis=0) >= 0.5, truth.shape)
    for name, tags in (("all classes in each", np.ones_like(usual)), ("those of most", usual)):
        chance = [100 * part.mean(axis=0)[part.any(axis=0)].mean() for part in (known, truth)]
        _print(name, *chance, "", 100 * f1(tags, truth), _wrong(tags, truth))


def _mean_precision(values: np.ndarray, present: np.ndarray) -> float:
    columns = zip(values.T, present.T, strict=True)
    return 100 * float(np.nanmean([average_precision(*column) for column in columns]))


def _wrong(tags: np.ndarray, present: np.ndarray) -> str:
    return f"{(tags != present).sum(axis=1).mean():.2f}"


def _print_masks(parts: dict[str, list[Seen]], scale: float) -> None:
    measure = measures(scale)[OURS]
    places = [(split, level) for split, part in parts.items() for level in part[0].patches]
    print()
    _print("image-level labels", *(f"{split}, {level}" for split, level in places))
    _print("---", *["---"] * len(places))
    truth = {split: np.stack([seen.present for seen in part]) for split, part in parts.items()}
    values = {split: np.stack([measure(s).numpy() for s in part]) for split, part in parts.items()}
    tags = {"true": truth}
    for threshold in THRESHOLDS:
        above = {split: value >= threshold for split, value in values.items()}
        tags[f"proposed from {threshold:g}" if threshold else "all classes"] = above
    for name, labels in tags.items():
        _print(name, *(pseudo_miou(parts[split], level, labels[split]) for split, level in places))


@app.command()
@command
def main(
    params: Annotated[Path, typer.Option(help="Parameter file.")] = Path("params.yaml"),
    every: Annotated[int, typer.Option(min=1, help="Take every n-th photo.")] = 1,
) -> None:
    """Score proposed labels against masks."""
    settings = load_params(params)
    named, asked = settings.dataset, settings.clip
    dataset = open_dataset(named.name, named.root)
    clip = load_clip(asked.model, asked.pretrained)
    words = dataset.label_space.words(asked.words)
    text = clip.embed_text([*words, *CONTRAST], resolve_templates(asked.templates))
    parts = {
        split: look(
            dataset,
            split,
            clip,
            text,
            levels=asked.levels,
            min_pixels=named.min_pixels,
            every=every,
        )
        for split in ("train", "val")
    }
    scale = temperature(clip)
    _print_measures(parts["train"], parts["val"], scale)
    _print_masks(parts, scale)


if __name__ == "__main__":
    app()
