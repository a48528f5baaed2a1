"""Trees, bushes and hedges."""

import math

import numpy as np

from demo.street.canvas import Canvas, Paint
from demo.street.classes import VEGETATION
from demo.street.dice import Colour, Point

LEAVES: tuple[Colour, ...] = (
    (74, 110, 48), (94, 126, 56), (58, 96, 50), (112, 128, 54), (156, 116, 46), (84, 116, 66),
    (128, 138, 60), (172, 92, 44),
)  # fmt: skip


def _outlines() -> tuple[tuple[Point, ...], ...]:
    """Rough circles of radius one, made once: the lobes of every crown."""
    rng = np.random.default_rng(11)
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    shapes = []
    for _ in range(24):
        radius = 1 + 0.2 * (rng.random(16) * 2 - 1)
        x, y = (radius * np.cos(angles)).tolist(), (radius * np.sin(angles)).tolist()
        shapes.append(tuple(zip(x, y, strict=True)))
    return tuple(shapes)


_OUTLINES = _outlines()


def _draw_lobe(canvas: Canvas, centre: Point, radius: Point, colour: Paint) -> None:
    (x, y), (a, b) = centre, radius
    points = [(x + a * u, y + b * v) for u, v in canvas.dice.pick(_OUTLINES)]
    canvas.polygon(points, colour, VEGETATION)


def draw_tree(canvas: Canvas, x: float, z: float) -> None:
    """A tree of one of three habits: broad, slender or coniferous."""
    dice = canvas.dice
    if not canvas.sees(x, z, 2.6):
        return
    height = dice.between(4.5, 9)
    habit = dice.pick(["broad", "broad", "broad", "broad", "slender", "conifer"])
    crown = dice.between(1.4, 2.5) if habit == "broad" else dice.between(0.8, 1.2)
    leaf = dice.shade_of(LEAVES)
    _cast_shadow(canvas, x, z, height, crown)
    _draw_trunk(canvas, x, z, max(height - crown * 0.9, 1.4))
    if habit == "conifer":
        _draw_conifer(canvas, x, z, height, dice.jitter((52, 88, 58), 10))
    else:
        _draw_crown(canvas, x, z, height, crown, leaf, slender=habit == "slender")


def _cast_shadow(canvas: Canvas, x: float, z: float, height: float, crown: float) -> None:
    canvas.ground_spot("contact", (x, z), (0.5, 0.5), 0.7)
    if canvas.mood.sunny:
        away = -canvas.mood.side * height * 0.45
        canvas.ground_spot("cast", (x + away, z), (crown * 1.2, crown), 1.0)
    else:
        canvas.ground_spot("contact", (x, z), (crown, crown), 0.35)


def _draw_trunk(canvas: Canvas, x: float, z: float, top: float) -> None:
    """A trunk ``top`` metres high, lit from the sun's side, that forks within the crown."""
    dice, s = canvas.dice, canvas.scale(z)
    px, py = canvas.at(x, 0, z)
    half, tip = s * dice.between(0.1, 0.18), py - s * top
    bark = dice.jitter((96, 76, 60), 8)
    dark, light = canvas.tone(bark, z, 0.75), canvas.tone(bark, z, 1.15)
    for way in (-1, 1):
        fork = [(px, py - s * top * 0.72), (px + way * s * 0.45, py - s * top * 1.04)]
        canvas.line(fork, dark, half * 0.7, VEGETATION)
        bole = [(px, py), (px + way * half * 1.3, py), (px + way * half * 0.6, tip), (px, tip)]
        canvas.polygon(bole, light if way * canvas.mood.side > 0 else dark, VEGETATION)


def _draw_crown(
    canvas: Canvas, x: float, z: float, height: float, crown: float, leaf: Colour, *, slender: bool
) -> None:
    """Lobes in three layers, dark ones at the back and below, bright ones towards the sun."""
    dice, side, s = canvas.dice, canvas.mood.side, canvas.scale(z)
    px, py = canvas.at(x, 0, z)
    stretch = 1.9 if slender else 0.85
    reach = crown * s
    cy = py - s * max(height - crown * stretch * 0.8, crown * stretch * 0.8 + 1.3)
    for light, spread, size, lobes in (
        (0.66, 0.62, 0.62, 5),
        (0.88, 0.5, 0.5, 4),
        (1.14, 0.42, 0.3, 5),
    ):
        for _ in range(lobes if s > 8 else 2):
            angle, far = dice.between(0, 2 * math.pi), math.sqrt(dice.between(0, 1)) * spread
            lift = (light - 0.66) * 0.55
            dx = far * math.cos(angle) + lift * 0.8 * side
            dy = far * math.sin(angle) - lift
            r = reach * size * dice.between(0.85, 1.15)
            tone = canvas.tone(leaf, z, light * (1 + 0.14 * side * dx - 0.12 * dy))
            place = (px + dx * reach, cy + dy * reach * stretch)
            _draw_lobe(canvas, place, (r, r * stretch), tone)


def _draw_conifer(canvas: Canvas, x: float, z: float, height: float, leaf: Colour) -> None:
    dice, s = canvas.dice, canvas.scale(z)
    px, py = canvas.at(x, 0, z)
    half, tip = dice.between(1.1, 1.6) * s, py - s * height
    for k in range(5):
        low = py - s * height * (0.12 + 0.17 * k)
        high = max(tip, low - s * height * 0.34)
        wide = half * (1 - 0.17 * k)
        gain = 0.75 + 0.07 * k
        boughs = [(px - wide, low), (px - wide * 0.4, low + s * 0.1), (px, low), (px, high)]
        canvas.polygon(
            boughs, canvas.tone(leaf, z, gain * (1.1 - 0.2 * canvas.mood.side)), VEGETATION
        )
        boughs = [(px + wide, low), (px + wide * 0.4, low + s * 0.1), (px, low), (px, high)]
        canvas.polygon(
            boughs, canvas.tone(leaf, z, gain * (1.1 + 0.2 * canvas.mood.side)), VEGETATION
        )


def draw_bush(canvas: Canvas, x: float, z: float) -> None:
    """A low shrub, now and then in flower."""
    dice, s = canvas.dice, canvas.scale(z)
    if not canvas.sees(x, z, 1.5):
        return
    px, py = canvas.at(x, 0, z)
    size, leaf = dice.between(0.5, 1.1) * s, dice.shade_of(LEAVES, 10)
    canvas.ground_spot("contact", (x, z), (size / s * 1.2, 0.6), 0.5)
    for light in (0.7, 0.85, 1.0, 1.15):
        place = (px + dice.between(-0.5, 0.5) * size, py - size * (0.3 + light * 0.35))
        r = size * (1.15 - light * 0.5)
        _draw_lobe(canvas, place, (r, r * 0.8), canvas.tone(leaf, z, light))


def draw_hedge(canvas: Canvas, x: float, reach: Point, height: float) -> None:
    """A clipped hedge along the road from ``reach[0]`` to ``reach[1]`` metres."""
    dice = canvas.dice
    leaf = dice.jitter(dice.pick(LEAVES[:3]), 10)
    near = max(reach[0], 3.5)
    cuts = np.geomspace(near, max(reach[1], near + 1), hedge_cuts(height))[::-1].tolist()
    tops = [height * dice.between(0.85, 1.1) for _ in cuts]
    for k in range(len(cuts) - 1):
        far, close = cuts[k], cuts[k + 1]
        gain = dice.between(0.84, 1.06)
        _draw_hedge_piece(canvas, x, (close, far), (tops[k + 1], tops[k]), leaf, gain)


def hedge_cuts(height: float) -> int:
    """Number of cuts along a hedge: tall ones are woods, and need more."""
    return 16 if height > 2 else 10


def _draw_hedge_piece(
    canvas: Canvas, x: float, z: Point, tops: Point, leaf: Colour, gain: float
) -> None:
    at = canvas.at
    for low, high, light in ((0.0, 0.55, 0.72), (0.55, 1.0, 1.0)):
        corners = [
            at(x, low * tops[0], z[0]),
            at(x, low * tops[1], z[1]),
            at(x, high * tops[1], z[1]),
            at(x, high * tops[0], z[0]),
        ]
        canvas.polygon(corners, canvas.tone(leaf, z[0], gain * light), VEGETATION)
    if tops[0] > 2:
        s = canvas.scale(z[1])
        px, py = at(x, tops[1], z[1])
        _draw_lobe(canvas, (px, py + 0.2 * s), (s * 1.4, s * 0.9), canvas.tone(leaf, z[1], gain))
