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


def drawn(seed: int, *, highest: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """A prediction with ids 0..highest and a mask of 4 classes, a tenth of it ignored."""
    rng = np.random.default_rng(seed)
    pred = rng.integers(0, highest, (2, 9, 7)).astype(np.uint8)
    mask = rng.integers(0, 4, (2, 9, 7)).astype(np.uint8)
    mask[rng.random(mask.shape) < 0.1] = 255
    return pred, mask


def slow_areas(
    pred: np.ndarray, mask: np.ndarray, num_classes: int
) -> tuple[np.ndarray, np.ndarray]:
    """Intersection and union of each class, pixel by pixel."""
    both, union = np.zeros((2, num_classes), dtype=np.int64)
    for guess, truth in zip(pred.flat, mask.flat, strict=True):
        if truth == 255:
            continue
        for index in range(num_classes):
            both[index] += guess == index and truth == index
            union[index] += guess == index or truth == index
    return both, union


def test_confusion_of_six_pixels_counted_by_hand():
    pred = np.array([[0, 1, 1], [2, 0, 0]])
    mask = np.array([[0, 1, 0], [2, 255, 2]])
    counts = confusion(pred, mask, 3)
    assert counts.dtype == np.int64
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 1]]
    assert iou(counts).tolist() == [1 / 3, 1 / 2, 1 / 2]
    assert recall(counts).tolist() == [1 / 2, 1, 1 / 2]
    assert precision(counts).tolist() == [1 / 2, 1 / 2, 1]
    assert accuracy(counts) == 3 / 5
    assert mean_iou(counts) == pytest.approx(4 / 9)


@pytest.mark.parametrize("name", ["cityscapes19", "perfect"])
def test_figures_match_the_golden_ones(name):
    golden = np.load(GOLDEN / f"miou_{name}.npz")
    num_classes, ignored = int(golden["num_classes"]), int(golden["ignore_index"])
    counts = confusion(golden["pred"], golden["label"], num_classes, ignored)
    assert np.array_equal(np.diag(counts), golden["area_intersect"])
    assert np.array_equal(counts.sum(0), golden["area_pred"])
    assert np.array_equal(counts.sum(1), golden["area_label"])
    for found, wanted in [
        (iou(counts), "IoU"),
        (recall(counts), "Acc"),
        (precision(counts), "Prec"),
        (accuracy(counts), "aAcc"),
        (mean_iou(counts), "mIoU"),
        (nan_mean(recall(counts)), "mAcc"),
        (nan_mean(precision(counts)), "mPrec"),
    ]:
        np.testing.assert_allclose(found, golden[wanted], rtol=1e-12, atol=0, equal_nan=True)


@pytest.mark.parametrize("highest", [4, 7])
def test_iou_equals_a_slow_loop_also_with_predictions_that_are_no_class(highest):
    pred, mask = drawn(3, highest=highest)
    both, union = slow_areas(pred, mask, 4)
    np.testing.assert_allclose(iou(confusion(pred, mask, 4)), both / union, rtol=1e-12)


def test_a_prediction_of_no_class_is_a_miss_and_nobody_s_prediction():
    counts = confusion(np.array([0, 255, 9, -1, 1]), np.array([0, 0, 0, 1, 255]), 2)
    assert counts.tolist() == [[1, 0, 2], [0, 0, 1]]  # the last column: no class
    assert iou(counts).tolist() == [1 / 3, 0]
    assert recall(counts).tolist() == [1 / 3, 0]
    assert accuracy(counts) == 1 / 4
    np.testing.assert_equal(precision(counts), [1, np.nan])


@given(st.data(), st.integers(1, 5), st.integers(0, 999))
def test_confusions_of_parts_in_any_order_add_up_to_that_of_their_union(data, num_classes, seed):
    rng = np.random.default_rng(seed)
    count = data.draw(st.integers(1, 40))
    mask = rng.choice([*range(num_classes), IGNORE_INDEX], count)
    pred = rng.integers(0, num_classes, count)
    order = np.array(data.draw(st.permutations(range(count))))
    cuts = sorted(data.draw(st.lists(st.integers(0, count), max_size=5)))
    parts = [confusion(pred[own], mask[own], num_classes) for own in np.split(order, cuts)]
    total = sum(parts)
    assert np.array_equal(total, confusion(pred, mask, num_classes))
    assert total.dtype == np.int64
    both, union = slow_areas(pred, mask, num_classes)
    known = np.where(union > 0, both / np.maximum(union, 1), np.nan)
    np.testing.assert_allclose(iou(total), known, rtol=1e-12)


def test_counts_of_many_pixels_are_exact():
    """2^24 + 1 is the first whole number that float32 does not hold."""
    one, many = confusion(np.zeros(1, int), np.zeros(1, int), 1), 2**24
    assert (many * one + one).tolist() == [[many + 1]]
    assert areas(many * one + one)[0].tolist() == [many + 1]


def test_a_sum_that_would_forget_misses_is_refused():
    total = np.zeros((2, 2), dtype=np.int64)
    with pytest.raises(ValueError, match="broadcast"):
        total = total + confusion(np.array([7]), np.array([0]), 2)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.int32, np.int64, np.uint16])
def test_arrays_and_tensors_of_any_integer_type_count_alike(dtype):
    pred, mask = drawn(2)
    wanted = confusion(pred, mask, 4)
    assert np.array_equal(confusion(pred.astype(dtype), mask.astype(dtype), 4), wanted)
    tensors = torch.from_numpy(pred.astype(dtype)), torch.from_numpy(mask.astype(np.int64))
    assert np.array_equal(confusion(*tensors, 4), wanted)
    assert np.array_equal(iou(torch.from_numpy(wanted)), iou(wanted))


@pytest.mark.parametrize("shape", [(0,), (2, 3)])
def test_nothing_annotated_gives_nan_without_a_warning(shape, recwarn):
    counts = confusion(np.zeros(shape, np.uint8), np.full(shape, 255, np.uint8), 3)
    assert not counts.any()
    assert np.isnan(iou(counts)).all()
    assert np.isnan([accuracy(counts), mean_iou(counts)]).all()
    assert not recwarn.list


def test_a_class_only_predicted_or_only_annotated_has_iou_zero_and_one_in_neither_nan():
    counts = confusion(np.array([0, 1]), np.array([0, 2]), 4)
    np.testing.assert_equal(iou(counts), [1, 0, 0, np.nan])
    np.testing.assert_equal(recall(counts), [1, np.nan, 0, np.nan])
    assert mean_iou(counts) == pytest.approx(1 / 3)


@pytest.mark.parametrize("value", [4, 33, 254, -1])
def test_a_mask_value_that_is_no_class_is_named(value):
    with pytest.raises(ValueError, match=rf"0\.\.3 or 255 \(ignored\), got {value}"):
        confusion(np.array([0, 0]), np.array([1, value]), 4)


def test_different_shapes_and_float_ids_are_refused():
    with pytest.raises(ValueError, match=r"same shape, got \(2, 3\) and \(6,\)"):
        confusion(np.zeros((2, 3), int), np.zeros(6, int), 2)
    with pytest.raises(ValueError, match=r"prediction must hold class indices .* got float32"):
        confusion(torch.zeros(3), np.zeros(3, int), 2)
    with pytest.raises(ValueError, match=r"must be \[C, C\], got \[2, 4\]"):
        iou(np.zeros((2, 4), int))
