"""Snapshots of a training, scored against human masks, and the choice of the network to evaluate.

Training itself keeps them blindly (``train.snapshots``): only the evaluation may see human masks.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pipeline.datasets.base import MaskReader, Scene
from pipeline.evaluation.segmenter import Metrics, score_segmenter
from pipeline.metrics import mean_iou
from pipeline.segmenter.inference import Segmenter, TestTimeOptions
from pipeline.segmenter.saved import SNAPSHOTS, load_segmenter
from pipeline.system.text import without_folders

log = logging.getLogger("carb")


class Snapshot(NamedTuple):
    """A network of a training: its step, its folder, its mIoU on the scored images."""

    step: int
    folder: Path
    miou: float


def snapshot_folders(model: Path) -> list[Path]:
    """Folders of the snapshots in a segmenter's folder, by step; none if it has none."""
    return sorted(path for path in (model / SNAPSHOTS).glob("*") if path.name.isdecimal())


def score_snapshots(
    model: Path,
    last: Segmenter,
    scenes: Sequence[Scene],
    *,
    read_mask: MaskReader,
    test_time: TestTimeOptions,
) -> list[Snapshot]:
    """mIoU of the snapshots in the folder ``model``, and of its own network, by step.

    Args:
        model: folder of the segmenter.
        last: the segmenter itself.
        scenes: images with human masks.
        read_mask: reads the data set's masks.
        test_time: test-time augmentation.
    """
    found = []
    for folder in [*snapshot_folders(model), model]:
        segmenter = last if folder == model else load_segmenter(folder)
        score = score_segmenter(
            segmenter, scenes, read_mask=read_mask, store=None, labels={}, test_time=test_time
        )
        found.append(
            Snapshot(int(segmenter.extra["steps"]), folder, float(mean_iou(score.confusion)))
        )
        log.info("step %d: mIoU %.1f", found[-1].step, 100 * found[-1].miou)
    return found


def choose(snapshots: Sequence[Snapshot], which: Literal["last", "best"]) -> Snapshot:
    """The last network, or the one with the highest mIoU (of equal ones the latest)."""
    if which == "last":
        return snapshots[-1]
    return max(snapshots, key=lambda one: (one.miou, one.step))


def described(snapshots: Sequence[Snapshot], which: Literal["last", "best"]) -> Metrics:
    """The choice for the metrics; ``choice`` is a sentence for the protocol."""
    chosen, steps = choose(snapshots, which), snapshots[-1].step
    text = f"the last of {len(snapshots)} networks, step {steps}"
    if which == "best":
        text = (
            f"the best of {len(snapshots)} networks, step {chosen.step} of {steps}; chosen on the "
            "photos that score it (the evaluation split), which makes its mIoU optimistic"
        )
    return {
        "weights": which,
        "step": chosen.step,
        "folder": without_folders(chosen.folder.as_posix()),
        "choice": text,
    }
