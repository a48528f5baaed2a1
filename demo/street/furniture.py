"""Street furniture: lamps, traffic lights and signs on their poles."""

import math
from collections.abc import Callable

from demo.street.canvas import Canvas, Paint
from demo.street.classes import LIGHT, POLE, SIGN
from demo.street.dice import Colour, Point

METAL: tuple[Colour, ...] = ((98, 100, 104), (138, 140, 142), (74, 80, 78))
HOUSINGS: tuple[Colour, ...] = ((34, 36, 38), (44, 48, 42), (28, 30, 30), (150, 130, 40))
SIGNALS: tuple[Paint, ...] = ((255, 60, 40), (255, 190, 40), (70, 255, 140))
WHITE: Colour = (244, 244, 242)
BOARDS: tuple[Colour, ...] = ((32, 92, 160), (34, 116, 78), (240, 206, 60))


def _draw_pole(canvas: Canvas, x: float, z: float, height: float, arm: float) -> Point:
    """A pole with an arm ``arm`` metres to the side; gives the pixel where the arm ends."""
    dice, s = canvas.dice, canvas.scale(z)
    px, py = canvas.at(x, 0, z)
    half = max(0.8, s * 0.075)
    metal = dice.shade_of(METAL, 8)
    canvas.ground_spot("contact", (x, z), (0.3, 0.3), 0.5)
    canvas.box((px - half, px + half), (py - s * height, py), canvas.tone(metal, z), POLE)
    if half > 1.4:
        shine = canvas.tone(metal, z, 1.25)
        edge = px + (half * 0.3 if canvas.mood.side > 0 else -half * 0.6)
        canvas.box((edge, edge + half * 0.3), (py - s * height, py), shine, POLE)
        foot = (px - half * 1.5, px + half * 1.5)
        canvas.box(foot, (py - s * 0.3, py), canvas.tone(metal, z, 0.85), POLE)
    if arm:
        tip = (px + s * arm, py - s * (height + 0.25))
        canvas.line([(px, py - s * height), tip], canvas.tone(metal, z), 1.6 * half, POLE)
    return px + s * arm, py - s * (height + (0.25 if arm else 0))


def draw_lamp(canvas: Canvas, sign: int, x: float, z: float) -> None:
    """A street lamp that leans over the road; it lights the ground when it is dark."""
    dice, s = canvas.dice, canvas.scale(z)
    arm = -sign * dice.between(0.8, 1.6)
    tip = _draw_pole(canvas, x, z, dice.between(5, 7.5), arm)
    head = (tip[0] - 0.3 * s, tip[0] + 0.3 * s)
    lit = canvas.mood.lamps_on
    shell = (255, 232, 180) if lit else canvas.tone((186, 188, 190), z)
    canvas.box(head, (tip[1] - 0.08 * s, tip[1] + 0.1 * s), shell, POLE)
    if lit:
        canvas.glow(tip, s * 0.45, (255, 205, 130), 0.9, source=shell)
        canvas.ground_spot("pool", (x + arm, z), (3.4, 3.4), 0.9)


def draw_traffic_light(canvas: Canvas, sign: int, x: float, z: float) -> None:
    """A signal head on a pole, or over the road at the end of an arm."""
    dice, s = canvas.dice, canvas.scale(z)
    over = dice.chance(0.35)
    height = dice.between(4.6, 5.4) if over else dice.between(2.7, 3.3)
    tip = _draw_pole(canvas, x, z, height, -sign * dice.between(1.5, 3) if over else 0.0)
    half, tall = max(1.6, s * 0.2), max(4.0, s)
    column, top = tip[0], tip[1] - s * (0.1 if over else 0.35)
    shell = canvas.tone(dice.pick(HOUSINGS), z)
    canvas.box((column - half, column + half), (top - 0.1 * tall, top + tall), shell, LIGHT)
    on = dice.count(0, 3)
    radius = max(0.9, min(half * 0.75, tall * 0.14))
    for k, signal in enumerate(SIGNALS):
        lamp = (column, top + tall * (0.15 + 0.3 * k))
        dim = (signal[0] // 5, signal[1] // 5, signal[2] // 5)
        canvas.disc(lamp, (radius, radius), signal if k == on else dim, LIGHT)
        if k == on:
            night = canvas.mood.night
            reach, strength = (2.2, 0.9) if night else (1.2, 0.25)
            canvas.glow(lamp, radius * reach, signal, strength, source=signal)


def draw_traffic_sign(canvas: Canvas, x: float, z: float) -> None:
    """One of seven signs on a pole; signs throw light back, so they stay bright at night."""
    dice, s = canvas.dice, canvas.scale(z)
    centre = _draw_pole(canvas, x, z, dice.between(2.1, 2.9), 0.0)
    radius = max(2.2, s * dice.between(0.33, 0.48))
    gain = 1.5 if canvas.mood.night else 1.05

    def tone(colour: Colour) -> Paint:
        return canvas.tone(colour, z, gain)

    dice.pick(SIGNS)(canvas, centre, radius, tone)


Toner = Callable[[Colour], Paint]


def _star(centre: Point, radius: float, corners: int, turn: float) -> list[Point]:
    """Corners of a regular polygon, the first ``turn`` radians from the right."""
    angles = [turn + 2 * math.pi * k / corners for k in range(corners)]
    return [(centre[0] + radius * math.cos(a), centre[1] + radius * math.sin(a)) for a in angles]


def _sign_ban(canvas: Canvas, centre: Point, r: float, tone: Toner) -> None:
    canvas.disc(centre, (r, r), tone((210, 36, 40)), SIGN)
    canvas.disc(centre, (r * 0.68, r * 0.68), tone(WHITE), SIGN)
    bar = (centre[1] - r * 0.2, centre[1] + r * 0.2)
    canvas.box((centre[0] - r * 0.35, centre[0] + r * 0.35), bar, tone((30, 30, 34)), SIGN)


def _sign_warning(canvas: Canvas, centre: Point, r: float, tone: Toner) -> None:
    canvas.polygon(_star(centre, r * 1.2, 3, -math.pi / 2), tone((212, 40, 40)), SIGN)
    canvas.polygon(_star(centre, r * 0.68, 3, -math.pi / 2), tone((246, 242, 228)), SIGN)


def _sign_order(canvas: Canvas, centre: Point, r: float, tone: Toner) -> None:
    x, y = centre
    canvas.disc(centre, (r, r), tone((34, 84, 176)), SIGN)
    canvas.box((x - r * 0.15, x + r * 0.15), (y - r * 0.3, y + r * 0.6), tone(WHITE), SIGN)
    arrow = [(x, y - r * 0.7), (x + r * 0.4, y - r * 0.2), (x - r * 0.4, y - r * 0.2)]
    canvas.polygon(arrow, tone(WHITE), SIGN)


def _sign_square(canvas: Canvas, centre: Point, r: float, tone: Toner) -> None:
    x, y = centre
    canvas.box((x - r * 0.9, x + r * 0.9), (y - r * 0.9, y + r * 0.9), tone((36, 88, 180)), SIGN)
    canvas.box((x - r * 0.45, x + r * 0.05), (y - r * 0.6, y + r * 0.6), tone(WHITE), SIGN)


def _sign_priority(canvas: Canvas, centre: Point, r: float, tone: Toner) -> None:
    canvas.polygon(_star(centre, r * 1.2, 4, 0.0), tone(WHITE), SIGN)
    canvas.polygon(_star(centre, r * 0.8, 4, 0.0), tone((250, 196, 36)), SIGN)


def _sign_stop(canvas: Canvas, centre: Point, r: float, tone: Toner) -> None:
    x, y = centre
    canvas.polygon(_star(centre, r * 1.1, 8, math.pi / 8), tone((204, 30, 38)), SIGN)
    canvas.box((x - r * 0.7, x + r * 0.7), (y - r * 0.18, y + r * 0.18), tone(WHITE), SIGN)


def _sign_board(canvas: Canvas, centre: Point, r: float, tone: Toner) -> None:
    (x, y), wide = centre, r * canvas.dice.between(1.5, 2.4)
    canvas.box((x - wide, x + wide), (y - r, y + r * 0.6), tone(canvas.dice.pick(BOARDS)), SIGN)
    for line in (-0.55, 0.05):
        rows = (y + r * line - r * 0.12, y + r * line + r * 0.12)
        canvas.box((x - wide * 0.7, x + wide * 0.6), rows, tone(WHITE), SIGN)


SIGNS: tuple[Callable[[Canvas, Point, float, Toner], None], ...] = (
    _sign_ban,
    _sign_warning,
    _sign_order,
    _sign_square,
    _sign_priority,
    _sign_stop,
    _sign_board,
)
