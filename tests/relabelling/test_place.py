"""The prior of where classes lie."""

from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline.relabelling.place import GRID, PlacedLogits, place_prior
from pipeline.store.reader import PseudoMaskStore
from pipeline.training.crops import TrainingPhoto
from pipeline.training.soft_labels import spread
from tests.helpers.tiny_store import store_of_logits

SIZE = (24, 32)


def photo(key: str, *present: bool) -> TrainingPhoto:
    return TrainingPhoto(key, Path(f"{key}.png"), SIZE, np.array(present))


@pytest.fixture
def store(store_of) -> PseudoMaskStore:
    """Class 0 in the upper half of both photos, class 1 below; class 2 nowhere."""
    logits = np.zeros((3, 6, 8))
    logits[0, :3], logits[1, 3:] = 1, 1
    return store_of({"global": {"a": logits, "b": logits}}, {"a": SIZE, "b": SIZE})


def test_the_prior_favours_a_class_where_its_masks_lie(store):
    photos = [photo("a", True, True, False), photo("b", True, True, False)]
    prior = place_prior(store, photos, unit=spread(store, ["a", "b"]))
    assert prior.shape == (3, *GRID)
    top, bottom = prior[:, 0, 0], prior[:, -1, -1]
    assert top[0] > 0.5 > -1 > bottom[0]
    assert bottom[1] > 0.5 > -1 > top[1]
    assert torch.equal(prior[2], torch.zeros(GRID))  # a class that is in no image


def test_a_class_counts_only_where_it_is_present(store):
    both = [photo("a", True, True, False), photo("b", True, True, False)]
    one = [photo("a", True, True, False), photo("b", True, False, False)]
    unit = spread(store, ["a", "b"])
    first, second = (place_prior(store, photos, unit=unit)[1] for photos in (both, one))
    torch.testing.assert_close(first, second)


def test_the_unit_follows_the_scale_of_the_logits(store, tmp_path):
    scaled = {key: 8 * store.read(key, "global") for key in "ab"}
    larger = store_of_logits(tmp_path / "larger", {"global": scaled}, {"a": SIZE, "b": SIZE})
    photos = [photo("a", True, True, False), photo("b", True, True, False)]
    units = [spread(one, ["a", "b"]) for one in (store, larger)]
    assert units[1] == pytest.approx(8 * units[0])
    first, second = (
        place_prior(one, photos, unit=unit)
        for one, unit in zip((store, larger), units, strict=True)
    )
    torch.testing.assert_close(first, second)


def test_the_prior_is_added_to_the_global_level_alone(store_of):
    grids = {"global": {"a": np.ones((3, 6, 8))}, "local": {"a": np.ones((3, 12, 16))}}
    store = store_of(grids, {"a": SIZE})
    prior = torch.arange(3.0)[:, None, None].expand(3, *GRID)
    placed = PlacedLogits(store, prior, weight=0.5, unit=2.0)
    assert (placed.read("a", "global") == 1 + np.arange(3)[:, None, None]).all()
    assert placed.read_padded("a", "global").dtype == np.float16
    assert (placed.read("a", "local") == store.read("a", "local")).all()
