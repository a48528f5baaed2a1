"""Batches of global and local views."""

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import torch
from lightning_fabric import Fabric
from PIL import Image
from torch import Tensor

import pipeline.training.crops
from pipeline.config.views import AugmentParams, ViewsParams
from pipeline.store.reader import PseudoMaskStore
from pipeline.training.crops import (
    Batch,
    CropDataset,
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
    """Row and column of the cells' centres in pixels of the image, ``[2, rows, columns]``."""
    y = (np.arange(rows) + 0.5) * size[0] / rows - 0.5
    x = (np.arange(columns) + 0.5) * size[1] / columns - 0.5
    return np.stack(np.meshgrid(y, x, indexing="ij"))


def ramp_grid(size: Size, cell_px: int) -> np.ndarray:
    return ramps(round(size[0] / cell_px), round(size[1] / cell_px), size)


MakeCrops = Callable[..., CropDataset]


@pytest.fixture
def crops_of(tmp_path: Path, store_of) -> MakeCrops:
    """Crops of images whose red and green, and whose grids, are their row and column."""

    def make(
        *,
        local: tuple[str, ...] = ("near", "fine"),
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
            local_levels=local,
            views=views,
            augment=augment,
            seed=seed,
            grid_stride=stride,
        )

    return make


def load(crops: CropDataset, *, rank: int = 0, world: int = 1) -> list[Batch]:
    """Six batches of four."""
    process = SimpleNamespace(global_rank=rank, world_size=world, device=torch.device("cpu"))
    fabric = cast("Fabric", process)
    return list(make_loader(fabric, crops, range(6), batch_size=4, workers=0))


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


def test_the_shares_of_all_processes_make_the_batches_of_one(crops_of):
    world, crops = 2, crops_of(augment=STRONG)
    whole = load(crops)
    assert whole[5].keys == [crops.photo_at(position).key for position in range(20, 24)]
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


def test_items_do_not_depend_on_earlier_requests(crops_of):
    forward, backward = crops_of(augment=STRONG), crops_of(augment=STRONG)
    items = [forward[position] for position in range(12)]
    others = [backward[position] for position in reversed(range(12))]
    assert_same(items, others[::-1])


@pytest.mark.parametrize("room", [0, -1])  # bytes beside what the decoded photos take
def test_images_are_decoded_once_if_all_fit_into_memory(crops_of, monkeypatch, room):
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


@pytest.mark.parametrize("room", [0, -1])
def test_logits_are_read_once_if_all_fit_into_memory(crops_of, monkeypatch, room):
    crops = crops_of()
    ordinary, read = crops.grids.read_padded, []
    monkeypatch.setattr(
        crops.grids,
        "read_padded",
        lambda key, level: read.append((key, level)) or ordinary(key, level),
    )
    grid = ordinary(crops.photos[0].key, "global")
    all_bytes = len(SIZES) * len(CELL_PX) * grid.nbytes
    monkeypatch.setattr(pipeline.training.crops, "KEPT_BYTES", all_bytes + room)
    count = 30 * len(SIZES)
    items = [crops[position] for position in range(count)]
    measured = 1  # one grid is read to know the size
    assert len(read) - measured == (2 * count if room else len(set(read)))
    assert_same(items, [crops_of()[position] for position in range(count)])


def test_each_epoch_uses_each_image_once_in_its_own_order(crops_of):
    crops = crops_of()
    count = len(SIZES)
    epochs = [
        [crops.photo_at(epoch * count + place).key for place in range(count)] for epoch in range(6)
    ]
    assert all(sorted(epoch) == [f"train/{index}" for index in range(count)] for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 3


def test_padding_grids_of_different_sizes_changes_no_sample(crops_of):
    crops = crops_of()
    items = [crops[position] for position in range(12)]
    assert len({item.local_logits.grids.shape for item in items}) == 2
    batch = collate(items)
    assert batch.local_logits.grids.shape[2:] == (
        48,
        66,
    )  # 97 and 131 pixels at 2 per cell, rounded
    alone = torch.cat([item.local_logits.sample() for item in items])
    torch.testing.assert_close(batch.local_logits.sample(), alone, atol=1e-3, rtol=0)


def test_without_local_levels_there_is_no_local_view_and_the_global_view_is_unchanged(crops_of):
    for batch, other in zip(load(crops_of(local=())), load(crops_of()), strict=True):
        assert batch.local_logits is None
        assert batch.local_boxes == []
        assert torch.equal(batch.images, other.images)
        assert torch.equal(batch.global_logits.rows, other.global_logits.rows)


def test_a_batch_moves_as_a_whole(crops_of):
    batch = collate([crops_of()[0]])
    moved = batch.to(torch.device("meta"))
    assert all(tensor.device.type == "meta" for tensor in tensors(moved))
    assert (moved.keys, moved.local_boxes) == (batch.keys, batch.local_boxes)
    assert collate([crops_of(local=())[0]]).to(torch.device("cpu")).local_logits is None
