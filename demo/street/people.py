"""People on foot, people on bicycles, and bicycles left standing."""

import math
from dataclasses import dataclass

from demo.street.canvas import Canvas, Paint
from demo.street.classes import BICYCLE, PERSON, RIDER
from demo.street.dice import Colour, Dice, Point, mix

CLOTHES: tuple[Colour, ...] = (
    (40, 44, 62), (156, 40, 44), (60, 92, 146), (204, 194, 172), (70, 72, 76), (196, 152, 60),
    (80, 114, 80), (36, 36, 40), (164, 90, 122), (224, 224, 222), (214, 110, 60),
)  # fmt: skip
SKIN: tuple[Colour, ...] = ((226, 182, 154), (164, 120, 92), (112, 80, 62))
HAIR: tuple[Colour, ...] = ((50, 38, 30), (30, 28, 28), (154, 114, 62), (124, 122, 120))
HELMETS: tuple[Colour, ...] = ((224, 224, 224), (204, 40, 40), (40, 60, 124), (40, 40, 40))
FRAMES: tuple[Colour, ...] = (
    (176, 40, 40), (50, 92, 166), (40, 40, 44), (206, 206, 206), (60, 134, 92)
)  # fmt: skip


@dataclass(frozen=True)
class Figure:
    """What a person wears: colours under the light, and where they stand on the canvas.

    Attributes:
        x: column of the feet, canvas pixels.
        y: row of the feet, canvas pixels.
        s: canvas pixels per metre of a grown-up.
    """

    x: float
    y: float
    s: float
    coat: Paint
    shade: Paint
    legs: Paint
    skin: Paint
    hair: Paint

    def points(self, offsets: list[Point]) -> list[Point]:
        """Canvas points of ``(right, up)`` offsets in metres from the feet."""
        return [(self.x + a * self.s, self.y - b * self.s) for a, b in offsets]


def _dress(canvas: Canvas, x: float, z: float, size: float, *, helmet: bool) -> Figure:
    dice: Dice = canvas.dice
    column, row = canvas.at(x, 0, z)
    coat = dice.shade_of(CLOTHES, 16)
    trousers = mix(dice.shade_of(CLOTHES, 16), (50, 54, 70), 0.6)
    return Figure(
        x=column,
        y=row,
        s=canvas.scale(z) * size,
        coat=canvas.tone(coat, z),
        shade=canvas.tone(coat, z, 0.78),
        legs=canvas.tone(trousers, z),
        skin=canvas.tone(dice.shade_of(SKIN, 8), z),
        hair=canvas.tone(dice.shade_of(HELMETS if helmet else HAIR, 8), z),
    )


def _shadow(canvas: Canvas, x: float, z: float, height: float) -> None:
    canvas.ground_spot("contact", (x, z), (0.4, 0.3), 0.8)
    if canvas.mood.sunny:
        tip = canvas.at(x - canvas.mood.side * height * 0.9, 0, z + 0.3)
        foot, s = canvas.at(x, 0, z), canvas.scale(z) * 0.14
        strip = [(foot[0], foot[1] - s), (foot[0], foot[1] + s), (tip[0], tip[1] + s * 0.6)]
        canvas.ground_shadow("cast", [*strip, (tip[0], tip[1] - s)], 0.9)


def draw_person(canvas: Canvas, x: float, z: float) -> None:
    """Someone who walks or stands, one in ten a child, in the rain perhaps under an umbrella."""
    dice = canvas.dice
    size = dice.between(0.88, 1.06) * (0.68 if dice.chance(0.1) else 1.0)
    if not canvas.sees(x, z, 1):
        return
    figure = _dress(canvas, x, z, size, helmet=False)
    _shadow(canvas, x, z, 1.7 * size)
    stride = dice.between(0.02, 0.2)
    for way in (-1, 1):
        ankle = way * (0.06 + stride)
        leg = [(way * 0.13, 0.92), (way * 0.0, 0.92), (ankle - 0.07, 0.0), (ankle + 0.08, 0.0)]
        canvas.polygon(figure.points(leg), figure.legs, PERSON)
        swing = dice.between(-0.02, 0.12)
        arm = [(way * 0.16, 1.45), (way * 0.24, 1.36), (way * (0.27 + swing), 0.84)]
        arm.append((way * (0.17 + swing), 0.82))
        canvas.polygon(figure.points(arm), figure.shade, PERSON)
    hem = 0.55 if dice.chance(0.25) else 0.8
    torso = [(-0.1, 1.5), (0.1, 1.5), (0.2, 1.4), (0.17, 1.05), (0.2, hem), (-0.2, hem)]
    torso += [(-0.17, 1.05), (-0.2, 1.4)]
    canvas.polygon(figure.points(torso), figure.coat, PERSON)
    _draw_head(canvas, figure, (0.0, 1.6), PERSON)
    if dice.chance(0.25):
        bag = canvas.tone(dice.shade_of(CLOTHES), z)
        left, top = figure.points([(0.16, 1.0)])[0]
        s = figure.s
        canvas.box((left, left + 0.18 * s), (top, top + 0.32 * s), bag, PERSON)
    if canvas.mood.weather == "rain" and dice.chance(0.5):
        _draw_umbrella(canvas, figure, canvas.tone(dice.shade_of(CLOTHES), z))


def _draw_head(canvas: Canvas, figure: Figure, place: Point, label: int) -> None:
    (x, y), s = figure.points([place])[0], figure.s
    canvas.disc((x, y), (0.1 * s, 0.135 * s), figure.skin, label)
    canvas.disc((x, y - 0.06 * s), (0.115 * s, 0.09 * s), figure.hair, label)


def _draw_umbrella(canvas: Canvas, figure: Figure, colour: Paint) -> None:
    arch = [
        (0.55 * math.cos(a), 1.72 + 0.36 * math.sin(a)) for a in (0.0, 0.6, 1.2, 1.9, 2.5, 3.14)
    ]
    canvas.polygon(figure.points(arch), colour, PERSON)


def draw_bicycle(canvas: Canvas, x: float, z: float) -> None:
    """A parked bicycle."""
    _draw_cycle(canvas, x, z, rider=False)


def draw_rider(canvas: Canvas, x: float, z: float) -> None:
    """A bicycle and the person who rides it."""
    _draw_cycle(canvas, x, z, rider=True)


def _draw_cycle(canvas: Canvas, x: float, z: float, *, rider: bool) -> None:
    """From the side (crossing or parked), or along its axis."""
    dice = canvas.dice
    if not canvas.sees(x, z, 1.2):
        return
    figure = _dress(canvas, x, z, 1.0, helmet=True)
    frame = canvas.tone(dice.shade_of(FRAMES, 14), z)
    dark = canvas.tone((28, 28, 32), z)
    _shadow(canvas, x, z, 1.7 if rider else 0.8)
    if dice.chance(0.6):
        way = dice.pick([-1, 1])
        _draw_cycle_side(canvas, figure, way, frame, dark)
        if rider:
            _draw_rider_side(canvas, figure, way)
    else:
        _draw_cycle_end(canvas, figure, frame, dark)
        if rider:
            _draw_rider_end(canvas, figure)


def _draw_cycle_side(canvas: Canvas, figure: Figure, way: int, frame: Paint, dark: Paint) -> None:
    """Two wheels and a diamond frame; wheels and diamond are labelled as solid."""
    s, r = figure.s, 0.35 * figure.s
    thick = max(1.2, 0.055 * s)
    marks = [(-0.22, 0.88), (0.42, 0.98), (-0.03, 0.32), (-0.53, 0.35), (0.53, 0.35)]
    seat, bar, hub, rear, head = figure.points([(way * a, b) for a, b in marks])
    canvas.veil([rear, seat, bar, head], dark, BICYCLE, 0.12)
    for centre in (rear, head):
        angles = [k * math.pi / 7 for k in range(14)]
        rim = [(centre[0] + r * math.cos(a), centre[1] + r * math.sin(a)) for a in angles]
        canvas.veil(rim, dark, BICYCLE, 0.28)
        canvas.ring(centre, (r, r), dark, BICYCLE, thick)
    tubes = ((rear, seat), (rear, hub), (hub, bar), (seat, bar), (bar, head), (hub, seat))
    for a, b in tubes:
        canvas.line([a, b], frame, thick, BICYCLE)
    canvas.box((seat[0] - 0.12 * s, seat[0] + 0.12 * s), (seat[1] - thick, seat[1]), dark, BICYCLE)


def _draw_rider_side(canvas: Canvas, figure: Figure, way: int) -> None:
    s = figure.s
    marks = [(-0.2, 1.0), (0.14, 0.7), (-0.03, 0.32), (0.12, 1.46), (0.42, 1.0)]
    hip, knee, hub, neck, bar = figure.points([(way * a, b) for a, b in marks])
    canvas.line([hip, knee, hub], figure.legs, 0.15 * s, RIDER)
    torso = [(-0.34 * way, 1.0), (-0.06 * way, 0.94), (0.24 * way, 1.42), (0.1 * way, 1.52)]
    canvas.polygon(figure.points([*torso, (-0.04 * way, 1.5)]), figure.coat, RIDER)
    canvas.line([neck, bar], figure.shade, 0.1 * s, RIDER)
    _draw_head(canvas, figure, (0.2 * way, 1.6), RIDER)


def _draw_cycle_end(canvas: Canvas, figure: Figure, frame: Paint, dark: Paint) -> None:
    s, thick = figure.s, max(1.2, 0.055 * figure.s)
    hub, stem, left, right = figure.points([(0, 0.35), (0, 0.95), (-0.3, 0.98), (0.3, 0.98)])
    canvas.disc(hub, (max(1.2, 0.06 * s), 0.35 * s), dark, BICYCLE)
    canvas.line([left, right], dark, thick, BICYCLE)
    canvas.line([hub, stem], frame, thick, BICYCLE)


def _draw_rider_end(canvas: Canvas, figure: Figure) -> None:
    s = figure.s
    for way in (-1, 1):
        leg = figure.points([(way * 0.1, 1.0), (way * 0.16, 0.6), (way * 0.1, 0.25)])
        canvas.line(leg, figure.legs, 0.13 * s, RIDER)
        arm = figure.points([(way * 0.18, 1.45), (way * 0.28, 1.0)])
        canvas.line(arm, figure.shade, 0.09 * s, RIDER)
    torso = [(-0.12, 1.52), (0.12, 1.52), (0.21, 1.42), (0.15, 0.88), (-0.15, 0.88), (-0.21, 1.42)]
    canvas.polygon(figure.points(torso), figure.coat, RIDER)
    _draw_head(canvas, figure, (0.0, 1.63), RIDER)
