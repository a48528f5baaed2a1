"""The carriageway, its pavements and verges, and what is painted on them."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from demo.street.canvas import Canvas
from demo.street.classes import ROAD, SIDEWALK, TERRAIN
from demo.street.dice import Colour, Dice, Point, mix

ASPHALT: tuple[Colour, ...] = ((112, 112, 116), (96, 96, 100), (128, 124, 120), (106, 108, 114))
PAVING: tuple[Colour, ...] = (
    (166, 160, 152), (178, 166, 154), (150, 150, 154), (172, 142, 126), (188, 180, 166)
)  # fmt: skip
GRASS: tuple[Colour, ...] = ((100, 134, 60), (118, 138, 70), (142, 128, 88), (88, 124, 56))


@dataclass(frozen=True)
class Strip:
    """A band along the road between two sideways positions, metres, road side first."""

    paved: bool
    inner: float
    outer: float

    @property
    def middle(self) -> float:
        """Half way across, metres."""
        return (self.inner + self.outer) / 2


@dataclass(frozen=True)
class Roadside:
    """One side of the street: ``sign`` -1 is left, 1 is right; ``line`` is where plots begin."""

    sign: int
    strips: tuple[Strip, ...]
    line: float

    @property
    def kerb(self) -> float:
        """Where the road ends, metres."""
        return self.strips[0].inner

    @property
    def pavement(self) -> Strip:
        """The first paved strip, or a narrow one at the line where there is none."""
        narrow = Strip(True, self.line, self.line + self.sign)
        return next((s for s in self.strips if s.paved), narrow)

    @property
    def verge(self) -> Strip | None:
        """The first strip of grass."""
        return next((s for s in self.strips if not s.paved), None)


@dataclass(frozen=True)
class Street:
    """The plan of the street: edges of the road in metres, number of lanes, both sides."""

    left: float
    right: float
    lanes: int
    sides: tuple[Roadside, Roadside]


def plan_street(dice: Dice) -> Street:
    """Draw the widths of lanes, pavements and verges."""
    lanes = dice.pick([2, 2, 3])
    left = -(dice.between(4.6, 6.2) if lanes == 2 else dice.between(7.6, 9.2))
    right = dice.between(2.0, 3.4)
    return Street(left, right, lanes, (_plan_side(dice, -1, left), _plan_side(dice, 1, right)))


def _plan_side(dice: Dice, sign: int, edge: float) -> Roadside:
    strips, x = [], edge
    for paved in dice.pick([(True,), (True,), (False, True), (True, False), (False,)]):
        width = dice.between(1.6, 3.6) if paved else dice.between(1.2, 4.0)
        strips.append(Strip(paved, x, x + sign * width))
        x += sign * width
    return Roadside(sign, tuple(strips), x)


def draw_ground(canvas: Canvas, street: Street) -> None:
    """Paint the ground from far to near, then joints, tracks and markings."""
    dice = canvas.dice
    road = dice.shade_of(ASPHALT, 10)
    if canvas.mood.weather == "rain":
        road = mix(road, (70, 74, 84), 0.5)
    pave, grass = dice.shade_of(PAVING, 10), dice.shade_of(GRASS)
    bands: list[tuple[Colour, int, Point]] = []
    for side in street.sides:
        bands.append((grass, TERRAIN, (side.line, side.line + side.sign * 60)))
        for strip in side.strips:
            span = (strip.inner, strip.outer)
            bands.append((pave, SIDEWALK, span) if strip.paved else (grass, TERRAIN, span))
    bands.append((road, ROAD, (street.left, street.right)))
    bands += [
        (mix(pave, (225, 222, 216), 0.5), SIDEWALK, (side.kerb, side.kerb + side.sign * 0.2))
        for side in street.sides
        if side.strips[0].paved
    ]
    near = nearest(canvas)
    cuts = np.geomspace(near, 110, 13)[::-1].tolist()
    for far, close in pairwise(cuts):
        for colour, label, span in bands:
            canvas.floor_quad(span, (close, far), canvas.tone(colour, (close + far) / 2), label)
    _draw_paving(canvas, street, pave, near)
    _draw_wear(canvas, street, road, near)
    _draw_markings(canvas, street, near)


def nearest(canvas: Canvas) -> float:
    """Distance of the ground at the lower edge of the picture, metres, a little less."""
    cam = canvas.camera
    return cam.focal * cam.height / (canvas.height - cam.horizon) * 0.92


def _draw_paving(canvas: Canvas, street: Street, pave: Colour, near: float) -> None:
    """Slabs, some lighter and some darker, and their joints."""
    dice = canvas.dice
    size = dice.pick([0.6, 0.9, 1.2])
    for side in street.sides:
        for strip in side.strips:
            if not strip.paved or not _in_view(canvas, strip):
                continue
            for _ in range(14):
                z = near * (1 + 5 * dice.between(0, 1) ** 2)
                x = dice.between(strip.inner, strip.outer - side.sign * size)
                x += side.sign * 0.2
                gain = dice.between(0.88, 1.1)
                end = x + side.sign * min(size, abs(strip.outer - x))
                canvas.floor_quad((x, end), (z, z + size), canvas.tone(pave, z, gain), SIDEWALK)
            z = near
            while z < 26:
                dark = canvas.tone(pave, z, 0.86)
                ends = [canvas.at(strip.inner, 0, z), canvas.at(strip.outer, 0, z)]
                canvas.line(ends, dark, 1, SIDEWALK)
                z += size * max(1.0, z / 6)
            seam = [canvas.at(strip.middle, 0, near), canvas.at(strip.middle, 0, 20)]
            canvas.line(seam, canvas.tone(pave, 8, 0.88), 1, SIDEWALK)


def _in_view(canvas: Canvas, strip: Strip) -> bool:
    return canvas.sees(strip.middle, 12, 6)


def _draw_wear(canvas: Canvas, street: Street, road: Colour, near: float) -> None:
    """Gutters, wheel tracks, seams of tar, patches and manhole covers."""
    dice = canvas.dice
    width = (street.right - street.left) / street.lanes
    for edge, inward in ((street.left, 0.35), (street.right, -0.35)):
        canvas.floor_quad((edge, edge + inward), (near, 60), canvas.tone(road, 10, 0.88), ROAD)
    if dice.chance(0.7):
        for lane in range(street.lanes):
            middle = street.left + (lane + 0.5) * width
            for x in (middle - 0.75, middle + 0.75):
                track = canvas.tone(road, 10, dice.between(0.9, 0.97))
                canvas.floor_quad((x - 0.25, x + 0.25), (near, 55), track, ROAD)
    for _ in range(dice.count(0, 4)):
        z, x = dice.between(5, 25), dice.between(street.left + 0.8, street.right - 0.8)
        colour = canvas.tone(road, z, dice.between(0.74, 0.9))
        if dice.chance(0.5):
            reach = (z, z + dice.between(1, 5))
            canvas.floor_quad((x - dice.between(0.4, 1.1), x + 0.4), reach, colour, ROAD)
        else:
            r = canvas.scale(z) * dice.between(0.25, 0.5)
            canvas.disc(canvas.at(x, 0, z), (r, r * canvas.camera.height / z), colour, ROAD)


def _draw_markings(canvas: Canvas, street: Street, near: float) -> None:
    """Lane lines, edge lines, a zebra crossing."""
    dice = canvas.dice
    white = dice.pick([(236, 236, 230), (236, 236, 230), (232, 200, 96)])
    width = (street.right - street.left) / street.lanes
    for k in range(1, street.lanes):
        x, z = street.left + k * width, near + dice.between(0, 3)
        dash, gap = (30.0, 0.0) if dice.chance(0.2) else (3.0, 4.5)
        while z < 70:
            canvas.floor_quad((x - 0.08, x + 0.08), (z, z + dash), canvas.tone(white, z), ROAD)
            z += dash + gap
    if dice.chance(0.5):
        for x in (street.left + 0.3, street.right - 0.3):
            canvas.floor_quad((x - 0.06, x + 0.06), (near, 70), canvas.tone(white, 15), ROAD)
    if dice.chance(0.28):
        z, x = dice.between(8, 24), street.left + 0.4
        bar = canvas.tone((232, 232, 226), z)
        while x < street.right - 0.5:
            canvas.floor_quad((x, x + 0.5), (z, z + 3), bar, ROAD)
            x += 1.0
