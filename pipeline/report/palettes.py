"""Colours of the classes in pictures: the data set's own, or some that colour-blind people tell
apart.

One man in twelve has trouble to tell red from green, and the usual colours of street scenes hold
many pairs that then become one. The palette ``colour_blind`` is chosen so that its two most alike
colours are as unlike as can be, under normal, protanopic, deuteranopic and tritanopic vision.
"""

from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from pipeline.config.params import PaletteName

Colours = npt.NDArray[np.uint8]
Values = npt.NDArray[np.float64]

# Linear RGB -> what a dichromat sees of it. Machado, Oliveira, Fernandes: A Physiologically-based
# Model for Simulation of Color Vision Deficiency, TVCG 2009, severity 1.
VISIONS: dict[str, Values] = {
    "normal": np.eye(3),
    "protanopia": np.array(
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ]
    ),
    "deuteranopia": np.array(
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ]
    ),
    "tritanopia": np.array(
        [
            [1.255528, -0.076749, -0.178779],
            [-0.078411, 0.930809, 0.147602],
            [0.004733, 0.691367, 0.303900],
        ]
    ),
}
# Linear RGB -> cones -> OKLab, in which equal distances look equally large: Ottosson 2020,
# bottosson.github.io/posts/oklab.
_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_OKLAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)
TONES = 16  # of red, green and blue that are tried, each with each
DARKEST = 0.3  # lightness in OKLab: screens show what is darker as black
MOVES = 200  # of one colour after the other to where it is farthest from the others
WHITE = np.full((1, 3), 255, np.uint8)  # of ignored pixels: no class may look like it
DIGITS = 6  # a tie must not be decided by how a processor rounds


def palette_of(name: PaletteName, own: Colours) -> Colours:
    """The colours to paint classes with.

    Args:
        name: ``dataset``: ``own``; ``colour_blind``: as many that stay apart, given to the classes
            so that each keeps near its own colour.
        own: the data set's colours, ``[C, 3]`` uint8 RGB, at most 255.

    Returns:
        ``[C, 3]`` uint8 RGB.
    """
    if name == "dataset":
        return own
    apart = np.array(_far_apart(len(own)), np.uint8)
    moved = np.linalg.norm(seen(own)[0][:, None] - seen(apart)[0][None], axis=-1)
    _, taken = linear_sum_assignment(moved.round(DIGITS))
    return np.asarray(apart[taken])


def seen(colours: Colours) -> Values:
    """How colours look with each kind of vision, ``[C, 3]`` -> ``[4, C, 3]`` OKLab."""
    share = colours.astype(np.float64) / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    looks = np.stack([linear @ vision.T for vision in VISIONS.values()]).clip(0, 1)
    return np.asarray(np.cbrt(looks @ _CONES.T) @ _OKLAB.T)


@lru_cache(maxsize=4)
def _far_apart(count: int) -> tuple[tuple[int, ...], ...]:
    """So many colours, far from each other and from white: greedily, then one by one moved to a
    better place."""
    tones = np.linspace(0, 255, TONES).round().astype(np.uint8)
    tried = np.stack(np.meshgrid(tones, tones, tones, indexing="ij"), axis=-1).reshape(-1, 3)
    tried = tried[seen(tried)[0, :, 0] >= DARKEST]
    looks = seen(tried)  # [4, tried, 3]
    rows = [_distance(looks, seen(WHITE))]
    chosen: list[int] = []
    for _ in range(count):
        chosen.append(int(np.minimum.reduce(rows).argmax()))
        rows.append(_distance(looks, looks[:, chosen[-1], None]))
    for place in (move % count for move in range(MOVES)):
        others = np.minimum.reduce(rows[: place + 1] + rows[place + 2 :])
        better = int(others.argmax())  # the first of equals
        if others[better] > others[chosen[place]]:
            chosen[place] = better
            rows[place + 1] = _distance(looks, looks[:, better, None])
    return tuple(tuple(colour) for colour in tried[chosen].tolist())


def _distance(looks: Values, one: Values) -> Values:
    """Of each colour tried to one, with the vision that tells them apart least: ``[tried]``."""
    return np.asarray(np.linalg.norm(looks - one, axis=-1).min(axis=0).round(DIGITS))
