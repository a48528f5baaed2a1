"""Batches of global and local views."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import pipeline.training.crops
from pipeline.config.params import AugmentParams, ViewsParams
from pipeline.store.reader import PseudoMaskStore
from pipeline.training.crops import (
    Batch,
    CropDataset,
    SampledLogits,
    StepBatchSampler,
    TrainingPhoto,
    collate,
    make_loader,
)

Size = tuple[int, int]
SIZES: list[Size] = [(60, 110), (75, 131), (64, 64), (97, 80), (40, 120)]
CELL_PX = {"global": 8, "near": 4, "fine": 2}
NOTHING = AugmentParams(style="torchvision", brightness=0, contrast=0, saturation=0, hue=0)
STRONG = AugmentParams(style="torchvision", brightness=0.2, contrast=0.4, saturation=0.4, hue=0.1)
VIEWS = ViewsParams(
    base_size=(64, 96), scale=(0.8, 2.0), crop=(48, 64), local_window=(24, 20), flip=0.5
)


def ramps(rows: int, columns: int, size: Size) -> np.ndarray:
    """Row and column of the cells' centres in pixels of the photo, ``[2, rows, columns]``."""
    y = (np.arange(rows) + 0.5) * size[0] / rows - 0.5
    x = (np.arange(columns) + 0.5) * size[1] / columns - 0.5
    return np.stack(np.meshgrid(y, x, indexing="ij"))


def ramp_grid(size: Size, cell_px: int) -> np.ndarray:
    return ramps(round(size[0] / cell_px), round(size[1] / cell_px), size)


MakeCrops = Callable[..., CropDataset]


@pytest.fixture
def crops_of(tmp_path: Path, store_of) -> MakeCrops:
    """Crops of photos whose red and green tell row and column, over grids that tell the same."""

    def make(
        *,
        far: tuple[str, ...] = ("near", "fine"),
        augment: AugmentParams = NOTHING,
        seed: int = 0,
        views: ViewsParams = VIEWS,
        stride: int = 1,
    ) -> CropDataset:
        photos = []
        for index, size in enumerate(SIZES):
            file = tmp_path / f"{index}.png"
            pixels = np.zeros((*size, 3), np.uint8)
            pixels[..., :2] = ramps(*size, size).transpose(1, 2, 0)
            Image.fromarray(pixels).save(file)
            photos.append(TrainingPhoto(f"train/{index}", file, size, np.arange(2) == index % 2))
        logits = {
            level: {photo.key: ramp_grid(photo.size, cell) for photo in photos}
            for level, cell in CELL_PX.items()
        }
        store: PseudoMaskStore = store_of(logits, {photo.key: photo.size for photo in photos})
        return CropDataset(
            photos,
            store,
            global_level="global",
            local_levels=far,
            views=views,
            augment=augment,
            seed=seed,
            grid_stride=stride,
        )

    return make


def load(
    crops: CropDataset,
    *,
    start: int = 0,
    stop: int = 6,
    rank: int = 0,
    world: int = 1,
    workers: int = 0,
) -> list[Batch]:
    steps = StepBatchSampler(start=start, stop=stop, batch_size=4, rank=rank, world=world)
    return list(make_loader(crops, steps, workers=workers, pin=False))


def tensors(batch: Batch) -> list[Tensor]:
    assert batch.local_logits is not None
    cuts = [*vars(batch.global_logits).values(), *vars(batch.local_logits).values()]
    return [batch.images, batch.image_labels, *cuts]


def assert_same(batches: list[Batch], others: list[Batch]) -> None:
    assert len(batches) == len(others)
    for batch, other in zip(batches, others, strict=True):
        assert batch.keys == other.keys
        assert batch.local_boxes == other.local_boxes
        for tensor, wanted in zip(tensors(batch), tensors(other), strict=True):
            assert torch.equal(tensor, wanted)


def worst_offset_px(pixels: Tensor, sampled: Tensor, size: Size, cell_px: int) -> float:
    """Largest distance between the places that colours tell and those that a grid tells.

    Beyond the centres of a photo's outermost cells a grid knows nothing: these pixels are left out.
    """
    worst = 0.0
    for axis, side in enumerate(size):
        margin = 0.5 * side / round(side / cell_px) + 1
        inner = (sampled[axis] > margin) & (sampled[axis] < side - 1 - margin)
        assert inner.float().mean() > 0.3
        worst = max(worst, float((pixels[axis] - sampled[axis])[inner].abs().max()))
    return worst


def test_every_pixel_s_target_is_of_the_place_that_the_pixel_shows(crops_of):
    crops = crops_of()
    flips, levels, heights = set(), set(), set()
    for batch in load(crops, stop=10):
        near, far = batch.global_logits.sample(), batch.local_logits.sample()
        for row, key in enumerate(batch.keys):
            size = SIZES[int(key.removeprefix("train/"))]
            image = batch.images[row].float()
            assert worst_offset_px(image, near[row], size, CELL_PX["global"]) < 1.3
            top, left, height, width = batch.local_boxes[row]
            window = image[:, top : top + height, left : left + width]
            assert window.shape[1:] == far.shape[2:]
            assert worst_offset_px(window, far[row], size, CELL_PX["fine"]) < 1.3
            flips.add(bool(image[1, 0, 0] > image[1, 0, -1]))
            levels.add(int((batch.local_logits.grids[row, 0] != 0).any(dim=1).sum()))
            heights.add(size[0])
    assert flips == {False, True}
    assert len(heights) == len(SIZES)
    assert len(levels) > len(SIZES)  # both levels were drawn


def test_targets_at_a_stride_lie_at_the_centres_of_their_pixels(crops_of):
    views = VIEWS.model_copy(update={"flip": 1.0})
    fine, coarse = (
        collate([crops_of(far=(), views=views, stride=stride)[3]]).global_logits.sample()
        for stride in (1, 4)
    )
    blocks = torch.nn.functional.avg_pool2d(fine, 4)
    assert coarse.shape == (1, 2, 12, 16)
    assert (coarse - blocks).abs().max() < 0.5


def test_batches_hold_what_they_say(crops_of):
    (batch,) = load(crops_of(), stop=1)
    assert batch.images.shape == (4, 3, 48, 64)
    assert batch.images.dtype == torch.uint8
    assert batch.image_labels.dtype == torch.bool
    for row, key in enumerate(batch.keys):
        index = int(key.removeprefix("train/"))
        assert batch.image_labels[row].tolist() == [index % 2 == 0, index % 2 == 1]
    assert batch.global_logits.grids.dtype == torch.float16
    assert batch.global_logits.sample().shape == (4, 2, 48, 64)
    assert batch.global_logits.sample().dtype == torch.float32
    assert batch.local_logits.sample().shape == (4, 2, 24, 20)
    assert all(box[2:] == (24, 20) for box in batch.local_boxes)
    assert len(set(batch.local_boxes)) > 1  # a place for each photo, not one a batch


def test_hard_masks_choose_among_the_classes_present():
    logits = torch.tensor([[3.0, 0.0, 0.0], [2.0, 2.0, -1.0], [1.0, 1.0, -2.0]])  # [C, w]
    cut = SampledLogits(
        logits[None, :, None].half(), torch.zeros(1, 1), torch.tensor([[0.0, 1.0, 2.0]])
    )
    assert cut.hard_masks(torch.tensor([[True, True, True]])).tolist() == [[[0, 1, 0]]]
    assert cut.hard_masks(torch.tensor([[False, True, True]])).tolist() == [[[1, 1, 1]]]
    assert cut.hard_masks(torch.tensor([[False, False, True]])).tolist() == [[[2, 2, 2]]]


def test_batches_do_not_depend_on_the_number_of_workers(crops_of):
    crops = crops_of(augment=STRONG)
    assert_same(load(crops, workers=1), load(crops, workers=0))


@pytest.mark.parametrize("world", [2, 4])
def test_the_shares_of_all_processes_make_the_batches_of_one(crops_of, world):
    crops = crops_of(augment=STRONG)
    whole = load(crops)
    shares = [load(crops, rank=rank, world=world) for rank in range(world)]
    for step, batch in enumerate(whole):
        parts = [share[step] for share in shares]
        assert [len(part.keys) for part in parts] == [4 // world] * world
        for row in range(4):
            part, place = parts[row % world], row // world
            assert part.keys[place] == batch.keys[row]
            assert part.local_boxes[place] == batch.local_boxes[row]
            assert torch.equal(part.images[place], batch.images[row])
            for name in ("global_logits", "local_logits"):
                own, joint = getattr(part, name).sample(), getattr(batch, name).sample()
                torch.testing.assert_close(own[place], joint[row], atol=1e-3, rtol=0)


def test_a_resumed_stream_is_the_tail_of_the_whole_one(crops_of):
    whole = load(crops_of(augment=STRONG), stop=8)
    for start in (3, 8):
        assert_same(load(crops_of(augment=STRONG), start=start, stop=8), whole[start:])


def test_items_do_not_depend_on_which_were_asked_for_before(crops_of):
    forward, backward = crops_of(augment=STRONG), crops_of(augment=STRONG)
    items = [forward[position] for position in range(12)]
    others = [backward[position] for position in reversed(range(12))]
    assert_same(items, others[::-1])


@pytest.mark.parametrize("room", [0, -1])  # bytes beside what the decoded photos take
def test_photos_are_decoded_once_if_all_fit_into_memory_and_crops_are_the_same(
    crops_of, monkeypatch, room
):
    ordinary, decoded, count = pipeline.training.crops.read_image, [], len(SIZES)
    monkeypatch.setattr(
        pipeline.training.crops, "read_image", lambda path: decoded.append(path) or ordinary(path)
    )
    photos_bytes = sum(4 * height * width for height, width in SIZES)
    monkeypatch.setattr(pipeline.training.crops, "KEPT_BYTES", photos_bytes + room)
    crops = crops_of()
    items = [crops[position] for position in range(3 * count)]
    assert len(decoded) == (3 * count if room else count)
    assert_same(items, [crops_of()[position] for position in range(3 * count)])


def test_each_epoch_shows_each_photo_once_in_an_order_of_its_own(crops_of):
    crops = crops_of()
    count = len(SIZES)
    epochs = [
        [crops.photo_at(epoch * count + place).key for place in range(count)] for epoch in range(6)
    ]
    assert all(sorted(epoch) == [f"train/{index}" for index in range(count)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 3


def test_another_seed_gives_other_crops_in_another_order(crops_of):
    batches, others = load(crops_of(seed=0)), load(crops_of(seed=1))
    assert [batch.keys for batch in batches] != [other.keys for other in others]
    assert crops_of(seed=0)[0].local_boxes != crops_of(seed=1)[0].local_boxes


def test_grids_of_different_sizes_are_padded_and_read_as_if_alone(crops_of):
    crops = crops_of()
    items = [crops[position] for position in range(12)]
    assert len({item.local_logits.grids.shape for item in items}) == 2
    batch = collate(items)
    assert batch.local_logits.grids.shape[2:] == (48, 66)  # 97 and 131 pixels at 2 a cell, rounded
    alone = torch.cat([item.local_logits.sample() for item in items])
    torch.testing.assert_close(batch.local_logits.sample(), alone, atol=1e-3, rtol=0)


def test_without_far_levels_there_is_no_local_view(crops_of):
    for batch in load(crops_of(far=()), stop=2):
        assert batch.local_logits is None
        assert batch.local_boxes == []
        assert batch.global_logits.sample().shape == (4, 2, 48, 64)


def test_the_global_view_is_the_same_with_and_without_a_local_one(crops_of):
    for batch, other in zip(load(crops_of()), load(crops_of(far=())), strict=True):
        assert torch.equal(batch.images, other.images)
        assert torch.equal(batch.global_logits.rows, other.global_logits.rows)


def test_a_batch_moves_as_a_whole(crops_of):
    batch = collate([crops_of()[0]])
    moved = batch.to(torch.device("meta"))
    assert all(tensor.device.type == "meta" for tensor in tensors(moved))
    assert (moved.keys, moved.local_boxes) == (batch.keys, batch.local_boxes)
    assert collate([crops_of(far=())[0]]).to(torch.device("cpu")).local_logits is None


def test_steps_worked_by_hand():
    steps = StepBatchSampler(start=1, stop=3, batch_size=4, rank=1, world=2)
    assert list(steps) == [[5, 7], [9, 11]]
    assert len(steps) == 2
