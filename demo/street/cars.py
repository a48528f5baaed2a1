"""Cars from behind and in front, with the flank that shows."""

from dataclasses import dataclass

from demo.street.canvas import Canvas
from demo.street.classes import CAR
from demo.street.dice import Colour, Dice, Point, mix
from demo.street.vehicles import (
    draw_lamps,
    draw_shadow,
    draw_tyres,
    draw_wheel,
    lamps_lit,
    visible_flank,
)

PAINTS: tuple[Colour, ...] = (
    (192, 30, 38), (38, 66, 132), (212, 213, 216), (38, 40, 44), (152, 156, 162), (96, 100, 108),
    (178, 162, 122), (58, 98, 76), (214, 170, 56), (122, 38, 50), (88, 144, 188), (222, 220, 212),
)  # fmt: skip


@dataclass(frozen=True)
class Car:
    """One car; lengths in metres.

    Attributes:
        x: sideways position of its middle.
        near: distance of the end towards us.
        far: distance of the other end.
        half: half its width.
        height: height of the roof.
        deck: length of the bonnet or boot towards us, 0 for none.
        rake: how far the window towards us leans back.
        tail: bonnet or boot plus window at the far end.
        paint: colour of the body.
        flank: the side that shows, -1 left, 1 right.
    """

    x: float
    near: float
    far: float
    half: float
    height: float
    deck: float
    rake: float
    tail: float
    paint: Colour
    flank: int

    @property
    def belt(self) -> float:
        """Height of the lower edge of the windows, metres."""
        return self.height * 0.6

    @property
    def roof(self) -> Point:
        """Where the roof begins and ends, metres ahead."""
        begin = self.near + self.deck + self.rake
        return begin, max(begin + 0.6, self.far - self.tail)


def _plan_car(canvas: Canvas, x: float, z: float, facing: int) -> Car:
    """Draw the shape: hatchback, saloon, estate or van."""
    dice: Dice = canvas.dice
    shape = dice.pick(["hatchback", "hatchback", "saloon", "estate", "van"])
    height = dice.between(1.75, 1.95) if shape == "van" else dice.between(1.4, 1.62)
    length = dice.between(3.8, 4.8)
    boot = {
        "hatchback": (0.15, 0.75),
        "saloon": (0.8, 0.9),
        "estate": (0.05, 0.35),
        "van": (0.0, 0.2),
    }
    bonnet = (0.5, 0.8) if shape == "van" else (0.95, 0.95)
    near, far = (boot[shape], bonnet) if facing > 0 else (bonnet, boot[shape])
    return Car(
        x=x,
        near=z,
        far=z + length,
        half=dice.between(1.7, 1.95) / 2,
        height=height,
        deck=near[0],
        rake=near[1],
        tail=sum(far),
        paint=dice.shade_of(PAINTS, 14),
        flank=visible_flank(canvas, x, z),
    )


def draw_car(canvas: Canvas, x: float, z: float, facing: int) -> None:
    """A car whose near end is ``z`` metres ahead; facing 1: from behind, -1: oncoming."""
    car = _plan_car(canvas, x, z, facing)
    draw_shadow(canvas, x, car.half * 1.05, (z, car.far), car.height)
    lit = lamps_lit(canvas)
    if not canvas.sees(x, z, 1.5) and not canvas.sees(x, car.far, 1.5):
        return
    if abs(x) > car.half * 0.6:
        _draw_flank(canvas, car)
    _draw_top(canvas, car)
    _draw_face(canvas, car, facing, lit=lit)


def _draw_flank(canvas: Canvas, car: Car) -> None:
    """Body, wheel arches, cabin and side windows as a row of points seen from the side."""
    at, z, far, x = canvas.at, car.near, car.far, car.x + car.flank * car.half
    inner = car.x + car.flank * car.half * 0.82
    gain = 0.86 + 0.14 * car.flank * canvas.mood.side
    sill, belt = 0.25, car.belt
    body = [(z, sill), (far, sill), (far, belt * 0.82), (far - 0.2, belt * 0.95)]
    body += [(z + 0.15, belt), (z, belt * 0.88)]
    canvas.polygon([at(x, y, d) for d, y in body], canvas.tone(car.paint, z, gain), CAR)
    skirt = canvas.tone(car.paint, z, gain * 0.7)
    canvas.wall_quad(x, (sill, sill + 0.16), (z + 0.3, far - 0.3), skirt, CAR)
    begin, end = car.roof
    cabin = [at(x, belt, z + car.deck), at(x, belt * 0.96, min(far, end + car.tail * 0.55))]
    cabin += [at(inner, car.height, end), at(inner, car.height, begin)]
    canvas.polygon(cabin, canvas.tone(car.paint, z, gain * 0.95), CAR)
    glass = canvas.tone(mix((44, 56, 70), canvas.mood.air, 0.25), z)
    high = car.height * 0.95
    reach = min(far, end + car.tail * 0.42)
    pane = [at(x, belt * 1.03, z + car.deck + 0.16), at(x, belt, reach)]
    pane += [at(inner, high, end - 0.05), at(inner, high, begin + 0.08)]
    canvas.polygon(pane, glass, CAR)
    middle = (begin + end) / 2
    post = [at(x, belt, middle), at(inner, high, middle)]
    canvas.line(post, canvas.tone(car.paint, z, 0.5), canvas.scale(z) * 0.06, CAR)
    crease = [at(x, belt * 0.8, z + 0.1), at(x, belt * 0.76, far - 0.2)]
    canvas.line(crease, canvas.tone(car.paint, z, gain * 1.2), 1, CAR)
    for k in (0.2, 0.81):
        draw_wheel(canvas, x, z + k * (far - z), 0.33, CAR)


def _draw_top(canvas: Canvas, car: Car) -> None:
    """Roof, the window that leans towards us, and the bonnet or boot before it."""
    at, x, z = canvas.at, car.x, car.near
    begin, end = car.roof
    low, high = z + car.deck, car.height
    roof = [at(x - car.half * 0.8, high, begin), at(x - car.half * 0.7, high * 1.02, begin + 0.1)]
    roof += [at(x + car.half * 0.7, high * 1.02, begin + 0.1), at(x + car.half * 0.8, high, begin)]
    roof += [at(x + car.half * 0.74, high * 0.99, end), at(x - car.half * 0.74, high * 0.99, end)]
    canvas.polygon(roof, canvas.tone(car.paint, z, 1.14), CAR)
    belt = car.belt * 0.98
    frame = [at(x - car.half * 0.95, belt, low), at(x - car.half * 0.8, high, begin)]
    frame += [at(x + car.half * 0.8, high, begin), at(x + car.half * 0.95, belt, low)]
    canvas.polygon(frame, canvas.tone(car.paint, z, 0.98), CAR)
    glass = mix((44, 56, 70), canvas.mood.air, 0.22)
    a, b = at(x - car.half * 0.84, belt * 1.04, low), at(x - car.half * 0.71, high * 0.955, begin)
    c, d = at(x + car.half * 0.71, high * 0.955, begin), at(x + car.half * 0.84, belt * 1.04, low)
    canvas.polygon([a, b, c, d], canvas.tone(glass, z), CAR)
    shine = [(a[0] + (d[0] - a[0]) * k, a[1]) for k in (0.5, 0.68)]
    shine += [(b[0] + (c[0] - b[0]) * k, b[1]) for k in (0.86, 0.68)]
    canvas.polygon(shine, canvas.tone(mix(glass, canvas.mood.low, 0.35), z), CAR)
    if car.deck > 0.1:
        wide, slim = car.half * 0.97, car.half * 0.93
        deck = [at(x - wide, car.belt * 0.96, z), at(x + wide, car.belt * 0.96, z)]
        deck += [at(x + slim, belt * 1.01, low), at(x - slim, belt * 1.01, low)]
        canvas.polygon(deck, canvas.tone(car.paint, z, 1.1), CAR)


def _draw_face(canvas: Canvas, car: Car, facing: int, *, lit: bool) -> None:
    """The end towards us: rounded panel, bumper, plate, lamps, grille and tyres."""
    z, paint = car.near, car.paint
    x0, y0 = canvas.at(car.x - car.half, car.belt * 0.99, z)
    x1, y1 = canvas.at(car.x + car.half, 0.24, z)
    wide, tall = x1 - x0, y1 - y0
    draw_tyres(canvas, (x0, x1), z, tall * 0.5, CAR)
    curve = ((0.03, 1.0), (0.0, 0.8), (0.0, 0.28), (0.025, 0.1), (0.08, 0.0))
    panel = [(x0 + a * wide, y0 + b * tall) for a, b in curve]
    panel += [(x1 - a * wide, y0 + b * tall) for a, b in reversed(curve)]
    canvas.polygon(panel, canvas.tone(paint, z, 1.0), CAR)
    rim = (x0 + 0.06 * wide, x1 - 0.06 * wide)
    canvas.box(rim, (y0, y0 + 0.1 * tall), canvas.tone(paint, z, 1.16), CAR)
    bumper = (x0 + 0.01 * wide, x1 - 0.01 * wide)
    canvas.box(bumper, (y1 - 0.34 * tall, y1 - 0.08 * tall), canvas.tone(paint, z, 0.82), CAR)
    canvas.box(bumper, (y1 - 0.12 * tall, y1), canvas.tone((38, 38, 42), z), CAR)
    if facing < 0:
        grille = (x0 + 0.27 * wide, x1 - 0.27 * wide)
        dark = canvas.tone((34, 36, 40), z)
        canvas.box(grille, (y0 + 0.24 * tall, y0 + 0.46 * tall), dark, CAR)
        canvas.box(grille, (y1 - 0.24 * tall, y1 - 0.1 * tall), dark, CAR)
    plate = (x0 + 0.37 * wide, x0 + 0.63 * wide)
    rows = (
        (y0 + 0.42 * tall, y0 + 0.58 * tall) if facing > 0 else (y0 + 0.58 * tall, y0 + 0.74 * tall)
    )
    canvas.box(plate, rows, canvas.tone((234, 232, 222), z), CAR)
    lamps = (y0 + 0.14 * tall, y0 + 0.48 * tall)
    draw_lamps(canvas, (x0, x1), lamps, z, facing, CAR, lit=lit)
    for edge, way in ((x0, -1), (x1, 1)):
        mirror = canvas.at(car.x, car.belt * 1.1, z + car.deck)[1]
        size = 0.05 * wide
        if facing < 0:
            place = (edge + way * size * 0.2, mirror)
            canvas.disc(place, (size, size * 0.8), canvas.tone(paint, z, 0.8), CAR)
