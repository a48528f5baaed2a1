"""Export a segmenter: the ONNX file, proof that it does the same, and a card that tells all."""

import json
import logging
from pathlib import Path
from typing import Any

from pipeline.deploy.onnx import AGREE, Difference, compare_with_torch, write_onnx
from pipeline.segmenter.card import model_card
from pipeline.segmenter.inference import Segmenter
from pipeline.system.files import atomic_path
from pipeline.system.text import error_text

log = logging.getLogger("carb")
MODEL, CARD = "model.onnx", "README.md"


def export(
    segmenter: Segmenter, out: Path, *, metrics: Path | None, opset: int | None = None
) -> None:
    """Write ``model.onnx`` and its card, or nothing.

    Args:
        segmenter: the model.
        out: folder to write; an earlier export is replaced.
        metrics: ``metrics.json`` of the segmenter's evaluation, for the card; or None.
        opset: version of ONNX's operators; None: torch's usual one.

    Raises:
        ValueError: the network cannot be exported, the file's classes are not the segmenter's,
            or ``metrics`` is not such a file.
    """
    figures = None if metrics is None else read_figures(metrics)
    with atomic_path(out) as draft:
        draft.mkdir()
        write_onnx(draft / MODEL, segmenter, opset=opset)
        found = compare_with_torch(draft / MODEL, segmenter)
        for one in found:
            batch, height, width = one.size
            log.info(
                "%d x %dx%d pixels: logits differ by at most %.1e, %.3f %% of pixels have the "
                "same class",
                *(batch, width, height, one.logits, 100 * one.same),
            )
        check_agreement(found)
        card = model_card(segmenter, metrics=figures, onnx=True)
        (draft / CARD).write_text(card, "utf-8")
    log.info("wrote %s and %s to %s", MODEL, CARD, out)


def check_agreement(found: list[Difference]) -> None:
    """Refuse a file that does not do what the segmenter does.

    Raises:
        ValueError: too many pixels are of another class at one of the sizes.
    """
    worst = min(found, key=lambda one: one.same)
    if worst.same < AGREE:
        raise ValueError(
            f"the exported file gives {100 * worst.same:.2f} % of pixels the segmenter's class at "
            f"{worst.size[2]}x{worst.size[1]} pixels, less than {100 * AGREE:g} %, and is not "
            "kept; train another segmenter.arch, such as unet or deeplabv3"
        )


def read_figures(path: Path) -> dict[str, Any]:
    """The figures that ``eval`` wrote.

    Raises:
        ValueError: the file is missing or another.
    """
    try:
        figures = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"--metrics {path}: not readable ({error_text(error)}); give the metrics.json of "
            "`carb eval`"
        ) from error
    wanted = {"mIoU": float, "IoU": dict, "protocol": dict}
    if not isinstance(figures, dict) or not all(
        isinstance(figures.get(name), kind) for name, kind in wanted.items()
    ):
        raise ValueError(
            f"--metrics {path}: must hold {', '.join(wanted)}; give the metrics.json of `carb eval`"
        )
    return figures
