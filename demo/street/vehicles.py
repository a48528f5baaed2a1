"""Parts common to all vehicles: wheels, lamps, shadows."""

from demo.street.canvas import Canvas
from demo.street.dice import Colour, Point, mix

TAIL: Colour = (230, 40, 36)
HEAD: Colour = (255, 250, 226)


def visible_flank(canvas: Canvas, x: float, z: float) -> int:
    """Which side of a vehicle shows: -1 its left, 1 its right."""
    return -1 if x + canvas.camera.curve * z * z > 0 else 1


def draw_shadow(canvas: Canvas, x: float, half: float, z: Point, height: float) -> None:
    """The dark under a vehicle and, in the sun, the shadow beside it."""
    at, (near, far) = canvas.at, z
    under = [at(x - half, 0, near - 0.2), at(x + half, 0, near - 0.2)]
    under += [at(x + half, 0, far), at(x - half, 0, far)]
    canvas.ground_shadow("contact", under, 1.0)
    if canvas.mood.sunny:
        away = x - canvas.mood.side * height * 0.8
        low, high = min(x - half, away - half), max(x + half, away + half)
        beside = [at(low, 0, near), at(high, 0, near), at(high, 0, far), at(low, 0, far)]
        canvas.ground_shadow("cast", beside, 0.9)


def draw_wheel(canvas: Canvas, x: float, z: float, radius: float, label: int) -> None:
    """A wheel on a flank, foreshortened, with its hub."""
    near, far = canvas.scale(max(1.0, z - radius)), canvas.scale(z + radius)
    px, py = canvas.at(x, radius, z)
    r = canvas.scale(z) * radius
    rx = max(r * 0.28, abs(x) * (near - far) / 2)
    canvas.disc((px, py), (rx, r), canvas.tone((24, 24, 28), z), label)
    canvas.disc((px, py), (rx * 0.58, r * 0.58), canvas.tone((140, 142, 146), z), label)
    canvas.disc((px, py), (rx * 0.2, r * 0.2), canvas.tone((60, 62, 66), z), label)


def draw_tyres(canvas: Canvas, span: Point, z: float, tall: float, label: int) -> None:
    """The near wheels seen end on, ``tall`` canvas pixels high, standing on the road."""
    wide, ground = span[1] - span[0], canvas.at(0, 0, z)[1]
    tyre = canvas.tone((20, 20, 24), z)
    for k in (0.03, 0.8):
        left = span[0] + k * wide
        canvas.box((left, left + 0.17 * wide), (ground - tall, ground), tyre, label)


def draw_lamps(
    canvas: Canvas, span: Point, y: Point, z: float, facing: int, label: int, *, lit: bool
) -> None:
    """Two lamps in the corners of ``span`` by ``y`` canvas pixels: red behind, white in front."""
    wide, tall = span[1] - span[0], y[1] - y[0]
    lamp = TAIL if facing > 0 else HEAD
    paint = (int(lamp[0]), int(lamp[1]), int(lamp[2]))
    dark = canvas.tone(mix(lamp, (150, 120, 120) if facing > 0 else (170, 176, 184), 0.35), z)
    for a, b in ((0.04, 0.21), (0.79, 0.96)):
        left, right = span[0] + a * wide, span[0] + b * wide
        centre, radius = ((left + right) / 2, (y[0] + y[1]) / 2), ((right - left) / 2, tall / 2)
        canvas.disc(centre, radius, paint if lit else dark, label)
        if facing > 0 and radius[1] > 1:
            foot = canvas.tone((240, 150, 60), z)
            canvas.box((left, right), (y[1] - tall * 0.2, y[1]), foot, label)
        if lit:
            strength = 0.8 if canvas.mood.night else 0.3
            reach = wide * (0.1 if facing > 0 else 0.13)
            canvas.glow(centre, reach, lamp, strength, source=paint)


def lamps_lit(canvas: Canvas) -> bool:
    """Whether this driver has the lights on."""
    mood = canvas.mood
    return mood.night or mood.weather != "clear" or canvas.dice.chance(0.15)
