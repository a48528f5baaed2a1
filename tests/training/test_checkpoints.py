"""Checkpoints of the training state."""

import copy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from pipeline.carb import CarbLoss
from pipeline.training.checkpoint import (
    DamagedError,
    Progress,
    checkpoint_bytes,
    load_checkpoint,
    save_checkpoint,
    seed_step,
)
from pipeline.views import Box

OPTIMIZERS = {
    "sgd": lambda model: SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01),
    "plain sgd": lambda model: SGD(model.parameters(), lr=0.1),
    "adamw": lambda model: AdamW(model.parameters(), lr=0.1),
}


class Run:
    """A small training run: CARB after one step of warm-up on drawn pseudo-masks."""

    def __init__(self, name: str = "adamw", *, width: int = 4, seed: int = 0) -> None:
        torch.manual_seed(seed)
        self.model = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.Conv2d(width, 3, 1)
        ).to(memory_format=torch.channels_last)
        self.carb = CarbLoss(tau=0.0, warmup_steps=1)
        self.optimizer: Optimizer = OPTIMIZERS[name](self.model)

    @property
    def modules(self) -> dict[str, nn.Module]:
        return {"model": self.model, "carb": self.carb}

    def step(self, seed: int) -> list[float]:
        generator = torch.Generator().manual_seed(seed)
        images = torch.randn(2, 3, 8, 8, generator=generator)
        masks = torch.randint(0, 3, (2, 8, 8), generator=generator)
        labels = torch.ones(2, 3, dtype=torch.bool)
        boxes = [Box(1, 2, 4, 4)] * 2
        terms = self.carb(self.model(images), masks, masks[:, 1:5, 2:6], boxes, labels)
        self.optimizer.zero_grad()
        terms.total.backward()
        self.optimizer.step()
        return [float(value.detach()) for value in vars(terms).values()]

    def weights(self) -> dict[str, Tensor]:
        return copy.deepcopy(self.model.state_dict())

    def save(self, path: Path, progress: Progress) -> None:
        save_checkpoint(path, modules=self.modules, optimizer=self.optimizer, progress=progress)

    def load(self, path: Path) -> Progress:
        return load_checkpoint(path, modules=self.modules, optimizer=self.optimizer)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "work" / "checkpoint.safetensors"


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_restored_run_continues_exactly(path, name):
    first = Run(name)
    for seed in range(4):
        first.step(seed)
    history = [{"step": 1.0, "total": 0.1}, {"step": 2.0, "total": float("inf")}]
    first.save(path, Progress(4, history))
    second = Run(name, seed=9)
    assert second.load(path) == Progress(4, history)
    for seed in range(4, 7):
        assert second.step(seed) == first.step(seed)
        assert second.carb.step == first.carb.step
        for key, value in first.weights().items():
            assert torch.equal(second.weights()[key], value), key
    assert torch.equal(second.carb.recent, first.carb.recent)
    assert second.carb.recent.isnan().sum() == 0  # three restored, two more, the first dropped


def test_a_failed_write_keeps_the_last_checkpoint(path):
    run = Run()
    run.step(0)
    run.save(path, Progress(1, []))
    before = path.read_bytes()
    run.step(1)
    with pytest.raises(TypeError):
        run.save(path, Progress(2, [{"step": torch.ones(1)}]))  # no JSON
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_checkpoint_with_a_flipped_bit_is_never_restored(path):
    run = Run()
    run.step(0)
    run.save(path, Progress(1, [{"step": 1.0}]))
    content, before = path.read_bytes(), Run(seed=9)
    weights = before.weights()
    for place in range(0, len(content), 23):
        spoilt = bytearray(content)
        spoilt[place] ^= 1 << place % 8
        path.write_bytes(spoilt)
        with pytest.raises(DamagedError, match="not a complete checkpoint"):
            before.load(path)
    path.write_bytes(content[:200])
    with pytest.raises(DamagedError, match="not a complete checkpoint"):
        before.load(path)
    assert all(torch.equal(value, weights[name]) for name, value in before.weights().items())


def test_an_unreadable_file_does_not_count_as_damaged(path):
    path.mkdir(parents=True)
    with pytest.raises(OSError, match=r"directory|No such device"):
        Run().load(path)


def test_disk_space_of_checkpoints_is_known_in_advance(path):
    for name in ("sgd", "adamw"):
        run = Run(name)
        expected = checkpoint_bytes(run.model, name)
        run.step(0)
        run.save(path, Progress(1, []))
        assert expected / 2 < path.stat().st_size < expected / 2 + 3000  # CARB, the header's names


def test_the_checkpoint_of_another_model_is_refused(path):
    Run(width=5).save(path, Progress(1, []))
    with pytest.raises(ValueError, match=r"(?s)not a checkpoint of this run \(.+\); delete it"):
        Run(width=4).load(path)


def test_draws_of_a_seeded_step_do_not_depend_on_earlier_ones():
    drawn = []
    for before in (0, 5):
        torch.rand(before)
        seed_step(3, 17)
        drawn.append(F.dropout(torch.ones(50)).tolist())
    assert drawn[0] == drawn[1]
    for seed, step in [(3, 18), (4, 17)]:
        seed_step(seed, step)
        assert F.dropout(torch.ones(50)).tolist() != drawn[0]
