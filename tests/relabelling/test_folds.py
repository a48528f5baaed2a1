"""Folds: blocks of consecutive frames within each drive."""

import pytest

from pipeline.relabelling.folds import folds_of


def test_blocks_of_consecutive_frames_in_each_drive():
    keys = [f"train/A_{n:03}" for n in range(6)] + [f"train/B_{n:03}" for n in range(4)]
    assert folds_of(keys, 2) == [0, 0, 0, 1, 1, 1, 0, 0, 1, 1]


def test_folders_are_drives_if_there_are_several():
    keys = ["train/ulm/a_1", "train/ulm/b_1", "train/bonn/a_1", "train/bonn/b_1"]
    assert folds_of(keys, 2) == [0, 1, 0, 1]


def test_names_without_drives_give_blocks_of_the_whole_list():
    assert folds_of([f"train/{n:06}" for n in range(7)], 3) == [0, 0, 0, 1, 1, 2, 2]


def test_a_drive_shorter_than_the_folds_makes_blocks_of_the_whole_list():
    assert folds_of(["train/A_1", "train/B_1", "train/B_2", "train/B_3"], 2) == [0, 0, 1, 1]


def test_more_folds_than_images_are_refused():
    with pytest.raises(ValueError, match=r"relabel\.folds must be at most .* \(2\), got 3"):
        folds_of(["train/1", "train/2"], 3)
