"""Pseudo-masks of whole photos, and whether a store fits parameters, classes and photos."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.config.params import Params
from pipeline.scenes.classes import LABEL_SPACES
from pipeline.store.checks import check_photos, check_store, clip_settings
from pipeline.store.reader import PseudoMaskStore, hard_mask

SPACE = LABEL_SPACES["camvid"]


@pytest.fixture
def store(store_of: Callable[..., PseudoMaskStore], params: Params) -> PseudoMaskStore:
    """A store of CamVid's classes with the recipe of params.yaml."""
    one = {"train/a": np.zeros((11, 1, 1), np.float32) + 0.5}
    made = store_of({"global": one, "local": one}, {"train/a": (16, 16)})
    made.classes = SPACE.names
    made.attributes["recipe"] = clip_settings(params.clip, SPACE.words(params.clip.class_prompts))
    return made


def test_a_store_of_these_parameters_and_classes_only_is_accepted(
    store: PseudoMaskStore, params: Params
) -> None:
    check_store(store, params.clip, SPACE)
    faster = params.clip.model_copy(update={"model": "ViT-B-16", "precision": "32-true"})
    check_store(store, faster, SPACE)  # the store's recipe identifies the weights by their bytes
    sentence = r"written for 11 classes \(sky, building, pole, ...\), params\.yaml asks for 'demo' "
    with pytest.raises(ValueError, match=sentence + r"\(17\); run `dvc repro pseudo`$"):
        check_store(store, params.clip, LABEL_SPACES["demo"])
    changes: dict[str, Any] = {"class_prompts": {"car": ["automobile"]}, "dense": "other"}
    changes |= {"templates": "other", "levels": {}, "activation": "gelu"}
    changes |= {"window_share": 0.5, "brightness": 0.45}
    for name, value in changes.items():
        sentence = rf"written for another clip\.{name} than params\.yaml has; run `dvc repro pseudo"
        with pytest.raises(ValueError, match=sentence):
            check_store(store, params.clip.model_copy(update={name: value}), SPACE)


def test_a_store_made_with_a_window_share_is_refused_without(
    store: PseudoMaskStore, params: Params
) -> None:
    share = params.clip.model_copy(update={"window_share": 0.5})
    before = store.attributes["recipe"]
    assert "window_share" not in before  # a store from before there was a window_share fits
    store.attributes["recipe"] = before | {"window_share": 0.5}
    check_store(store, share, SPACE)
    with pytest.raises(ValueError, match=r"written for another clip\.window_share"):
        check_store(store, params.clip, SPACE)


def test_a_store_of_photos_that_changed_is_refused(store: PseudoMaskStore) -> None:
    check_photos(store, {"train/a": "train/a", "train/new": "x"})  # its digest is its key here
    with pytest.raises(ValueError, match=r"'train/a' has changed since .* \(1 of 2 photos"):
        check_photos(store, {"train/new": "x", "train/a": "y"})


def test_a_hard_mask_has_the_best_class_of_the_bilinearly_upsampled_logits() -> None:
    logits = torch.tensor([[[1.0, 0.0]], [[0.0, 1.2]], [[9.0, 9.0]]])  # [3, 1, 2]
    present = torch.tensor([True, True, False])
    # Class 0 falls 1, .75, .25, 0 over the four pixels, class 1 rises 0, .3, .9, 1.2.
    assert hard_mask(logits, present, (1, 4)).tolist() == [[0, 0, 1, 1]]
    assert hard_mask(logits, present, (2, 2)).tolist() == [[0, 1], [0, 1]]
    mask = hard_mask(logits, ~present, (1, 4))
    assert (mask.dtype, mask.tolist()) == (torch.int64, [[2, 2, 2, 2]])


@settings(max_examples=20)
@given(st.integers(0, 10**6), st.lists(st.booleans(), min_size=5, max_size=5).filter(any))
def test_a_hard_mask_never_has_an_absent_class(seed: int, labels: list[bool]) -> None:
    logits = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(seed)) - 5
    present = torch.tensor(labels)
    mask = hard_mask(logits, present, (7, 9))
    assert mask.shape == (7, 9)
    assert present[mask].all()
