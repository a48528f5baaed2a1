"""Random numbers, choices and colours of a scene, from one generator."""

from collections.abc import Sequence
from typing import TypeVar

import numpy as np

Colour = tuple[float, float, float]
Point = tuple[float, float]
Item = TypeVar("Item")


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """Linear interpolation between two colours; ``share`` 0 is ``first``."""
    return (
        first[0] + (second[0] - first[0]) * share,
        first[1] + (second[1] - first[1]) * share,
        first[2] + (second[2] - first[2]) * share,
    )


class Dice:
    """Draws numbers, choices and colours from one generator; ``wide`` varies the colours more."""

    def __init__(self, rng: np.random.Generator, *, wide: bool) -> None:
        self.rng = rng
        self.wide = wide

    def between(self, low: float, high: float) -> float:
        """A uniform number in ``[low, high)``."""
        return low + (high - low) * self.rng.random()

    def chance(self, probability: float) -> bool:
        """True with this probability."""
        return self.rng.random() < probability

    def pick(self, items: Sequence[Item]) -> Item:
        """One of the items, each as likely as the next."""
        return items[int(self.rng.random() * len(items))]

    def count(self, low: float, high: float) -> int:
        """A uniform number in ``[low, high)``, rounded down."""
        return int(self.between(low, high))

    def jitter(self, colour: Colour, amount: float = 12.0) -> Colour:
        """The colour, a little lighter or darker and a little off its hue."""
        amount *= 1.8 if self.wide else 1.0
        common = self.between(-amount, amount)
        red, green, blue = (c + common + self.between(-amount, amount) * 0.6 for c in colour)
        return red, green, blue

    def shade_of(self, colours: Sequence[Colour], amount: float = 12.0) -> Colour:
        """One of the colours, jittered."""
        return self.jitter(self.pick(colours), amount)
