"""Confusion matrix, IoU, recall, precision, accuracy."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pipeline.metrics import (
    accuracy,
    areas,
    confusion,
    iou,
    mean_iou,
    nan_mean,
    precision,
    recall,
)
from pipeline.scenes.classes import IGNORE_INDEX

GOLDEN = Path(__file__).parent / "golden"


def slow_iou(pred: np.ndarray, mask: np.ndarray, num_classes: int) -> np.ndarray:
    """IoU of each class, counted pixel by pixel."""
    both, union = np.zeros((2, num_classes), dtype=np.int64)
    for guess, truth in zip(pred, mask, strict=True):
        for index in range(num_classes if truth != IGNORE_INDEX else 0):
            both[index] += guess == index and truth == index
            union[index] += guess == index or truth == index
    return np.where(union > 0, both / np.maximum(union, 1), np.nan)


def test_confusion_of_six_pixels_counted_by_hand():
    counts = confusion(np.array([[0, 1, 1], [2, 0, 0]]), np.array([[0, 1, 0], [2, 255, 2]]), 3)
    assert counts.dtype == np.int64
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert iou(counts).tolist() == [1 / 3, 1 / 2, 1 / 2]
    assert recall(counts).tolist() == [1 / 2, 1, 1 / 2]
    assert precision(counts).tolist() == [1 / 2, 1 / 2, 1]
    assert accuracy(counts) == 3 / 5
    assert mean_iou(counts) == pytest.approx(4 / 9)


@pytest.mark.parametrize("name", ["cityscapes19", "perfect"])
def test_metrics_equal_the_golden_ones(name):
    golden = np.load(GOLDEN / f"miou_{name}.npz")
    num_classes, ignored = int(golden["num_classes"]), int(golden["ignore_index"])
    counts = confusion(golden["pred"], golden["label"], num_classes, ignored)
    hit, predicted, annotated = areas(counts)
    for found, wanted in [
        (hit, "area_intersect"),
        (predicted, "area_pred"),
        (annotated, "area_label"),
        (iou(counts), "IoU"),
        (recall(counts), "Acc"),
        (precision(counts), "Prec"),
        (accuracy(counts), "aAcc"),
        (mean_iou(counts), "mIoU"),
        (nan_mean(recall(counts)), "mAcc"),
        (nan_mean(precision(counts)), "mPrec"),
    ]:
        np.testing.assert_allclose(found, golden[wanted], rtol=1e-12, atol=0, equal_nan=True)


@given(st.data(), st.integers(1, 5), st.integers(0, 999))
def test_matrices_of_parts_sum_to_that_of_the_whole_whose_iou_equals_a_slow_loop(
    data, num_classes, seed
):
    rng = np.random.default_rng(seed)
    count = data.draw(st.integers(1, 40))
    mask = rng.choice([*range(num_classes), IGNORE_INDEX], count)
    pred = rng.integers(0, num_classes, count)
    order = np.array(data.draw(st.permutations(range(count))))
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=5)))
    total = sum(confusion(pred[own], mask[own], num_classes) for own in np.split(order, cuts))
    assert np.array_equal(total, confusion(pred, mask, num_classes))
    np.testing.assert_allclose(iou(total), slow_iou(pred, mask, num_classes), rtol=1e-12)


def test_counts_of_many_pixels_are_exact():
    """2^24 + 1 is the first whole number that float32 does not hold."""
    one, many = confusion(np.zeros(1, int), np.zeros(1, int), 1), 2**24
    assert areas(many * one + one)[0].tolist() == [many + 1]


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16])
def test_arrays_and_tensors_of_any_integer_type_count_alike(dtype):
    pred, mask = np.array([[0, 1, 3], [2, 2, 0]]), np.array([[0, 255, 3], [1, 2, 2]])
    wanted = confusion(pred, mask, 4)
    assert np.array_equal(confusion(pred.astype(dtype), mask.astype(dtype), 4), wanted)
    tensors = torch.from_numpy(pred.astype(dtype)), torch.from_numpy(mask)
    assert np.array_equal(confusion(*tensors, 4), wanted)
    assert np.array_equal(iou(torch.from_numpy(wanted)), iou(wanted))


@pytest.mark.parametrize("shape", [(0,), (2, 3)])
def test_nothing_annotated_gives_nan_without_a_warning(shape, recwarn):
    counts = confusion(np.full(shape, 9, np.uint8), np.full(shape, 255, np.uint8), 3)
    assert counts.tolist() == [[0, 0, 0]] * 3
    assert np.isnan(iou(counts)).all()
    assert np.isnan([accuracy(counts), mean_iou(counts)]).all()
    assert not recwarn.list


def test_a_class_only_predicted_or_only_annotated_has_iou_zero_and_one_in_neither_nan():
    counts = confusion(np.array([0, 1]), np.array([0, 2]), 4)
    np.testing.assert_equal(iou(counts), [1, 0, 0, np.nan])
    np.testing.assert_equal(recall(counts), [1, np.nan, 0, np.nan])
    assert mean_iou(counts) == pytest.approx(1 / 3)


@pytest.mark.parametrize("value", [4, 254, -1])
def test_a_value_that_is_no_class_is_named(value):
    good, bad = np.array([0, 1]), np.array([1, value])
    with pytest.raises(ValueError, match=rf"mask values .* 0\.\.3 or 255 \(ignored\), got {value}"):
        confusion(good, bad, 4)
    with pytest.raises(ValueError, match=rf"prediction values must be 0\.\.3, got {value}"):
        confusion(bad, good, 4)


def test_different_shapes_and_float_ids_are_refused():
    with pytest.raises(ValueError, match=r"same shape, got \(2, 3\) and \(6,\)"):
        confusion(np.zeros((2, 3), int), np.zeros(6, int), 2)
    with pytest.raises(ValueError, match=r"prediction must hold class indices .* got float32"):
        confusion(torch.zeros(3), np.zeros(3, int), 2)
    with pytest.raises(ValueError, match=r"must be \[C, C\], got \[2, 3\]"):
        iou(np.zeros((2, 3), int))
