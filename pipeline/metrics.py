"""Segmentation metrics: the confusion matrix, and IoU, recall, precision and accuracy from it.

Counts are int64 (float32 sums lose pixels on large data sets), and the matrices of parts sum to the
matrix of the whole. IoU as in Cityscapes and mmsegmentation: the counts of all images are summed
first and divided once; pixels whose mask is 255 are ignored.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from pipeline.scenes.classes import IGNORE_INDEX

if TYPE_CHECKING:  # stages that only draw charts need not wait for torch
    from torch import Tensor

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]
AnyArray = npt.NDArray[Any]


def _array(values: Tensor | AnyArray) -> AnyArray:
    if hasattr(values, "detach"):
        values = values.detach().cpu().numpy()
    return np.asarray(values)


def _ids(values: Tensor | AnyArray, name: str) -> IntArray:
    """Any integer array or tensor as flat int64."""
    array = _array(values)
    if array.dtype.kind not in "iu":
        raise ValueError(f"{name} must hold class indices (integers), got {array.dtype}")
    return array.astype(np.int64).reshape(-1)


def confusion(
    pred: Tensor | AnyArray,
    mask: Tensor | AnyArray,
    num_classes: int,
    ignore_index: int = IGNORE_INDEX,
) -> IntArray:
    """Count how often each class of the mask was predicted as each class.

    Args:
        pred: predicted class per pixel, any integer type and shape. A value that is no class (a
            pseudo-mask's 255) is a miss: it enlarges the union of the pixel's mask class and of no
            other, as in mmsegmentation.
        mask: human annotation, of the same shape; ``ignore_index`` is not counted.
        num_classes: C.
        ignore_index: the value of unannotated pixels.

    Returns:
        ``[C, C]`` int64, rows = mask, columns = prediction. Only where some pixel was predicted as
        no class there is one more column, ``[C, C + 1]``, which counts those pixels.

    Raises:
        ValueError: the shapes differ, a type is not an integer one, or the mask holds a
            value that is neither a class nor ``ignore_index``.
    """
    if tuple(pred.shape) != tuple(mask.shape):
        raise ValueError(
            f"prediction and mask must have the same shape, got {tuple(pred.shape)} and "
            f"{tuple(mask.shape)}; upsample the logits to the mask's size before the arg-max"
        )
    truth, guess = _ids(mask, "mask"), _ids(pred, "prediction")
    valid = truth != ignore_index
    truth, guess = truth[valid], guess[valid]
    strange = truth[(truth < 0) | (truth >= num_classes)]
    if strange.size:
        raise ValueError(
            f"mask values must be 0..{num_classes - 1} or {ignore_index} (ignored), "
            f"got {strange[0]}; is the mask of another label space?"
        )
    column = np.where((guess < 0) | (guess >= num_classes), num_classes, guess)
    width = num_classes + 1  # the last column: predicted as no class
    wide = np.bincount(truth * width + column, minlength=num_classes * width)
    counts: IntArray = wide.reshape(num_classes, width).astype(np.int64)
    return counts if counts[:, -1].any() else np.ascontiguousarray(counts[:, :-1])


def areas(confusion: Tensor | AnyArray) -> tuple[IntArray, IntArray, IntArray]:
    """Pixels of each class: ``hit, predicted, annotated``, each ``[C]`` int64.

    Args:
        confusion: counts as `confusion` gives them, ``[C, C]`` or ``[C, C + 1]``.

    Raises:
        ValueError: the matrix has another shape.
    """
    counts = _array(confusion).astype(np.int64)
    if counts.ndim != 2 or counts.shape[1] - counts.shape[0] not in (0, 1):
        raise ValueError(f"a confusion matrix must be [C, C], got {list(counts.shape)}")
    return counts.diagonal().copy(), counts[:, : len(counts)].sum(0), counts.sum(1)


def _ratio(part: IntArray, whole: IntArray) -> FloatArray:
    """``part / whole`` in float64, NaN where the whole is empty."""
    ratio: FloatArray = np.full(part.shape, np.nan)
    return np.divide(part, whole, out=ratio, where=whole > 0)


def iou(confusion: Tensor | AnyArray) -> FloatArray:
    """Intersection over union of each class, ``[C]`` float64 NaN where the union is empty."""
    hit, predicted, annotated = areas(confusion)
    return _ratio(hit, predicted + annotated - hit)


def recall(confusion: Tensor | AnyArray) -> FloatArray:
    """Share of each class's annotated pixels that were found, ``[C]`` float64, NaN if none."""
    hit, _, annotated = areas(confusion)
    return _ratio(hit, annotated)


def precision(confusion: Tensor | AnyArray) -> FloatArray:
    """Share of each class's predicted pixels that are right, ``[C]`` float64, NaN if none."""
    hit, predicted, _ = areas(confusion)
    return _ratio(hit, predicted)


def accuracy(confusion: Tensor | AnyArray) -> float:
    """Share of all annotated pixels that are right; NaN if there are none."""
    hit, _, annotated = areas(confusion)
    return float(_ratio(hit.sum(keepdims=True), annotated.sum(keepdims=True))[0])


def nan_mean(values: FloatArray) -> float:
    """Mean of the values that are not NaN; NaN if there are none."""
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")


def mean_iou(confusion: Tensor | AnyArray) -> float:
    """Mean IoU over the classes with a non-empty union (mIoU); NaN if there are none."""
    return nan_mean(iou(confusion))
