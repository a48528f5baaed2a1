"""Laws of the CARB loss: invariances, the partition into regions, limits."""

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
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
    """Inputs of a step, in double precision."""

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
    """Masks of present classes, partly ignored, and windows anywhere in the crops."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(shape, generator=generator, dtype=torch.float64)

    labels = rand(photos, classes) < 0.6
    labels[torch.arange(photos), (rand(photos) * classes).long()] = True  # at least one per image

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
    """Terms, gradient and remembered terms of each step."""
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


@given(st.data(), runs(), TAUS, st.integers(0, 99))
def test_order_of_images_and_classes_doubled_images_and_constants_change_nothing(
    data, steps, tau, seed
):
    """All terms, lambda and its memory over several steps.

    Means are over pixels, so each image twice gives the same loss and half the gradient for each
    copy. A constant added to all classes of a pixel leaves its softmax.
    """
    images = 2 * list(data.draw(st.permutations(range(len(steps[0].masks)))))
    classes = list(data.draw(st.permutations(range(steps[0].logits.shape[1]))))
    name_of = torch.full((IGNORE_INDEX + 1,), IGNORE_INDEX)
    name_of[classes] = torch.arange(len(classes))
    generator, changed = torch.Generator().manual_seed(seed), []
    for scene in (step[images] for step in steps):
        shape = (len(images), 1, *scene.masks.shape[1:])
        constant = 10 * torch.randn(shape, generator=generator, dtype=torch.float64)
        logits = scene.logits[:, classes] + constant
        masks, local = name_of[scene.masks], name_of[scene.local]
        changed.append(Scene(logits, masks, local, scene.boxes, scene.labels[:, classes]))
    wanted = run(steps, tau=tau)
    for step in wanted:
        step["gradient"] = step["gradient"][images][:, classes] / 2
    assert_equal(run(changed, tau=tau), wanted)


@given(runs(classes=4), TAUS, st.floats(0.01, 100))
def test_only_ratios_of_class_weights_matter(steps, tau, factor):
    weights = torch.tensor([0.5, 1.0, 2.0, 7.0], dtype=torch.float64)
    found = run(steps, tau=tau, class_weights=factor * weights)
    assert_equal(found, run(steps, tau=tau, class_weights=weights))


@given(runs(), st.floats(0, 1), st.floats(0, 1))
def test_regions_partition_the_valid_pixels_and_shrink_as_tau_grows(steps, tau, other):
    for scene in steps:
        for reliable, noisy in (regions(scene, tau=tau), regions(scene, tau=other)):
            assert not (reliable & noisy).any()
            assert torch.equal(reliable | noisy, scene.masks != IGNORE_INDEX)
        loose, strict = (regions(scene, tau=value)[0] for value in sorted((tau, other)))
        assert (strict <= loose).all()


@given(runs(), TAUS)
def test_the_terms_of_the_regions_add_up_to_the_plain_loss(steps, tau):
    """|R| CE(R) + |N| CE(N) = |valid| CE(valid), on crops; CE(valid) is the warm-up's."""
    for scene in steps:
        (plain,) = run([scene], tau=tau, warmup_steps=9)
        (split,) = run([scene], tau=tau, warmup_steps=0)
        reliable, noisy = (int(region.sum()) for region in regions(scene, tau=tau))
        joined = reliable * split["reliable"] + noisy * split["noisy"]
        torch.testing.assert_close(joined, (reliable + noisy) * plain["reliable"])
        fraction = reliable / max(1, reliable + noisy)
        assert float(split["reliable_fraction"]) == pytest.approx(fraction, abs=1e-6)


@given(runs())
def test_with_nothing_reliable_carb_is_the_plain_loss(steps):
    """At tau 1 with two classes or more every pixel is noisy, and lambda has no ratio yet."""
    some = [replace(scene, labels=torch.ones_like(scene.labels)) for scene in steps]
    found = run(some, tau=1, warmup_steps=0)
    plain = run(some, tau=1, warmup_steps=99)
    for step, other in zip(found, plain, strict=True):
        assert step["weight"] == 1
        assert step["recent"].isnan().all()
        for name in ("total", "gradient"):
            torch.testing.assert_close(step[name], other[name], rtol=1e-9, atol=1e-12)


def test_a_probability_of_exactly_tau_is_reliable():
    logits, masks = torch.zeros(1, 2, 1, 1), torch.zeros(1, 1, 1, dtype=torch.long)
    labels = torch.ones(1, 2, dtype=torch.bool)  # two classes of equal logits: 0.5 each
    for tau, reliable in ((0.5, True), (0.51, False)):
        assert split_by_consistency(logits, masks, labels, tau=tau)[0].item() is reliable
