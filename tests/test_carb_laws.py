"""Laws of the CARB loss: what may change in a batch, or in the devices, and change nothing."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pipeline.carb import CarbLoss, split_by_consistency
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.views import Box

WARMUP, NUM_STEPS = 1, 3  # one step of the plain loss, then two of CARB
TAUS = st.sampled_from([0.0, 0.3, 0.7, 1.0])


@dataclass
class Scene:
    """What a step sees, in double precision."""

    logits: Tensor
    masks: Tensor
    local: Tensor
    boxes: list[Box]
    labels: Tensor

    def __getitem__(self, photos: Any) -> "Scene":
        index = torch.arange(len(self.masks))[photos].tolist()
        parts = (self.logits[index], self.masks[index], self.local[index])
        return Scene(*parts, [self.boxes[place] for place in index], self.labels[index])


def drawn(
    seed: int, *, photos: int, classes: int, size: tuple[int, int], ignored: float = 0.2
) -> Scene:
    """Masks of classes present, some of it ignored, and windows anywhere in the crops."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    labels = rand(photos, classes) < 0.6
    labels[torch.arange(photos), (rand(photos) * classes).long()] = True  # at least one a photo

    def masks(height: int, width: int) -> Tensor:
        votes = rand(photos, classes, height, width).masked_fill(~labels[:, :, None, None], -1)
        return votes.argmax(1).masked_fill(rand(photos, height, width) < ignored, IGNORE_INDEX)

    window = [1 + int(rand() * side) for side in size]
    boxes = [
        Box(*(int(rand() * (s - w + 1)) for s, w in zip(size, window, strict=True)), *window)
        for _ in range(photos)
    ]
    logits = 2 * torch.randn(photos, classes, *size, generator=generator, dtype=torch.float64)
    return Scene(logits, masks(*size), masks(*window), boxes, labels)


@st.composite
def runs(draw: st.DrawFn, **changes: Any) -> list[Scene]:
    """The batches of a few steps."""
    kind = {
        "photos": draw(st.integers(1, 4)),
        "classes": draw(st.integers(2, 5)),
        "size": (draw(st.integers(1, 6)), draw(st.integers(1, 6))),
        "ignored": draw(st.sampled_from([0.0, 0.2, 0.9])),
    }
    seed = draw(st.integers(0, 999))
    return [drawn(seed + 1000 * step, **(kind | changes)) for step in range(NUM_STEPS)]


def run(steps: list[Scene], **options: Any) -> list[dict[str, Tensor]]:
    """Terms of each step with the gradient of the total, and what lambda remembers after it."""
    loss = CarbLoss(**{"tau": 0.0, "warmup_steps": WARMUP, **options}).double()
    found = []
    for scene in steps:
        logits = scene.logits.clone().requires_grad_()
        terms = loss(logits, scene.masks, scene.local, scene.boxes, scene.labels)
        (gradient,) = torch.autograd.grad(terms.total, logits)
        values = {name: value.detach() for name, value in vars(terms).items()}
        found.append({**values, "recent": loss.recent.clone(), "gradient": gradient})
    return found


def assert_equal(found: list[dict[str, Tensor]], wanted: list[dict[str, Tensor]]) -> None:
    for one, other in zip(found, wanted, strict=True):
        for name in one.keys() | other.keys():
            torch.testing.assert_close(
                one[name], other[name], rtol=1e-9, atol=1e-12, equal_nan=True, msg=name
            )


def regions(scene: Scene, *, tau: float) -> tuple[Tensor, Tensor]:
    return split_by_consistency(scene.logits, scene.masks, scene.labels, tau=tau)


@given(st.data(), runs(), TAUS)
def test_the_order_of_the_photos_changes_nothing(data, steps, tau):
    """All terms, lambda and its memory over several steps; the gradient moves with the photos."""
    order = data.draw(st.permutations(range(len(steps[0].masks))))
    wanted = run(steps, tau=tau)
    for step in wanted:
        step["gradient"] = step["gradient"][list(order)]
    assert_equal(run([scene[list(order)] for scene in steps], tau=tau), wanted)


@given(runs(), TAUS)
def test_every_photo_twice_changes_nothing(steps, tau):
    """Means are over pixels, so a batch twice as large is no louder; each copy has half a say."""
    wanted = run(steps, tau=tau)
    for step in wanted:
        step["gradient"] = step["gradient"].repeat(2, 1, 1, 1) / 2
    twice = [scene[list(range(len(scene.masks))) * 2] for scene in steps]
    assert_equal(run(twice, tau=tau), wanted)


@given(runs(), TAUS, st.integers(0, 99))
def test_a_constant_added_to_all_classes_of_a_pixel_changes_nothing(steps, tau, seed):
    generator = torch.Generator().manual_seed(seed)
    moved = []
    for scene in steps:
        shape = (len(scene.masks), 1, *scene.masks.shape[1:])
        shift = 10 * torch.randn(shape, generator=generator, dtype=torch.float64)
        moved.append(replace(scene, logits=scene.logits + shift))
    assert_equal(run(moved, tau=tau), run(steps, tau=tau))


@given(st.data(), runs(), TAUS)
def test_another_order_of_the_classes_changes_nothing(data, steps, tau):
    order = list(data.draw(st.permutations(range(steps[0].logits.shape[1]))))
    name_of = torch.full((IGNORE_INDEX + 1,), IGNORE_INDEX)
    name_of[order] = torch.arange(len(order))
    renamed = [
        Scene(s.logits[:, order], name_of[s.masks], name_of[s.local], s.boxes, s.labels[:, order])
        for s in steps
    ]
    wanted = run(steps, tau=tau)
    for step in wanted:
        step["gradient"] = step["gradient"][:, order]
    assert_equal(run(renamed, tau=tau), wanted)


@given(runs(classes=4), TAUS, st.floats(0.01, 100))
def test_class_weights_count_by_their_ratios_alone(steps, tau, factor):
    weights = torch.tensor([0.5, 1.0, 2.0, 7.0], dtype=torch.float64)
    found = run(steps, tau=tau, class_weights=factor * weights)
    assert_equal(found, run(steps, tau=tau, class_weights=weights))


@given(runs(), st.floats(0.01, 100))
def test_logits_any_number_of_times_as_large_are_as_reliable_at_tau_0(steps, factor):
    for scene in steps:
        larger = replace(scene, logits=factor * scene.logits)
        for region, other in zip(regions(scene, tau=0), regions(larger, tau=0), strict=True):
            assert torch.equal(region, other)


@given(runs(), st.floats(0, 1), st.floats(0, 1))
def test_regions_part_the_valid_pixels_and_shrink_as_tau_grows(steps, tau, other):
    for scene in steps:
        for reliable, noisy in (regions(scene, tau=tau), regions(scene, tau=other)):
            assert not (reliable & noisy).any()
            assert torch.equal(reliable | noisy, scene.masks != IGNORE_INDEX)
        loose, strict = (regions(scene, tau=value)[0] for value in sorted((tau, other)))
        assert (strict <= loose).all()


@given(runs(), TAUS)
def test_the_terms_of_the_regions_make_the_plain_loss_again(steps, tau):
    """|R| CE(R) + |N| CE(N) = |valid| CE(valid), on crops; CE(valid) is the warm-up's."""
    for scene in steps:
        (plain,) = run([scene], tau=tau, warmup_steps=9)
        (parted,) = run([scene], tau=tau, warmup_steps=0)
        reliable, noisy = (int(region.sum()) for region in regions(scene, tau=tau))
        joined = reliable * parted["reliable"] + noisy * parted["noisy"]
        torch.testing.assert_close(joined, (reliable + noisy) * plain["reliable"])
        fraction = reliable / max(1, reliable + noisy)
        assert float(parted["reliable_fraction"]) == pytest.approx(fraction, abs=1e-6)


@given(runs())
def test_with_nothing_reliable_carb_is_the_plain_loss(steps):
    """At tau 1 all is noisy if photos hold two classes or more, and lambda has no ratio yet."""
    some = [replace(scene, labels=torch.ones_like(scene.labels)) for scene in steps]
    found = run(some, tau=1, warmup_steps=0)
    plain = run(some, tau=1, warmup_steps=99)
    for step, other in zip(found, plain, strict=True):
        assert step["weight"] == 1
        assert step["recent"].isnan().all()
        for name in ("total", "gradient"):
            torch.testing.assert_close(step[name], other[name], rtol=1e-9, atol=1e-12)


@given(runs(photos=1), TAUS)
def test_the_regions_of_a_photo_do_not_depend_on_the_others_of_its_batch(steps, tau):
    whole = [torch.cat(parts) for parts in zip(*(regions(s, tau=tau) for s in steps), strict=True)]
    joint = split_by_consistency(
        torch.cat([scene.logits for scene in steps]),
        torch.cat([scene.masks for scene in steps]),
        torch.cat([scene.labels for scene in steps]),
        tau=tau,
    )
    assert torch.equal(joint[0], whole[0])
    assert torch.equal(joint[1], whole[1])


SHARES = [slice(0, 1), slice(1, 4)]  # of four photos process 0 has one, process 1 three
OPTIONS = [{}, {"class_weights": torch.tensor([1.0, 3.0, 0.2])}, {"tau": 0.4, "queue_size": 2}]


def scenes_to_share() -> list[Scene]:
    """Four photos a step; in one step process 0 sees nothing, in the other it alone does."""
    steps = [drawn(seed, photos=4, classes=3, size=(5, 6)) for seed in range(4)]
    for step, blind in ((1, SHARES[0]), (2, SHARES[1])):
        steps[step].masks[blind] = IGNORE_INDEX
        steps[step].local[blind] = IGNORE_INDEX
    return steps


def _one_of_two(rank: int, folder: Path) -> None:
    """Each process holds its own photos."""
    rendezvous = f"file://{folder / 'rendezvous'}"
    dist.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=2)
    own = [scene[SHARES[rank]] for scene in scenes_to_share()]
    torch.save([run(own, **options) for options in OPTIONS], folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_give_the_terms_and_the_gradient_of_one(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_one_of_two, (tmp_path,), nprocs=2)
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in range(2)]
    for number, options in enumerate(OPTIONS):
        wanted = run(scenes_to_share(), **options)
        shares = [part[number] for part in parts]
        for first, second in zip(*shares, strict=True):  # data-parallel training takes the mean
            joined = torch.cat([first.pop("gradient"), second.pop("gradient")]) / 2
            first["gradient"] = second["gradient"] = joined
        for share in shares:
            assert_equal(share, wanted)


def test_a_probability_of_exactly_tau_is_reliable():
    logits, masks = torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)
    labels = torch.ones(1, 2, dtype=torch.bool)  # two classes of equal logits: 0.5 each
    for tau, reliable in ((0.5, True), (0.51, False)):
        assert split_by_consistency(logits, masks, labels, tau=tau)[0].item() is reliable
