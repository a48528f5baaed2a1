"""Buses and trucks: tall boxes that differ in windows and load."""

from dataclasses import dataclass

from demo.street.canvas import Canvas, Paint
from demo.street.classes import BUS, TRUCK
from demo.street.dice import Colour, Point, mix
from demo.street.vehicles import (
    draw_lamps,
    draw_shadow,
    draw_tyres,
    draw_wheel,
    visible_flank,
)

LIVERIES: tuple[Colour, ...] = (
    (204, 44, 40), (238, 190, 48), (230, 230, 228), (54, 110, 174), (70, 144, 90), (224, 122, 48)
)  # fmt: skip
CABS: tuple[Colour, ...] = (
    (226, 226, 224), (180, 40, 40), (44, 76, 140), (232, 180, 60), (70, 110, 80), (60, 62, 68)
)  # fmt: skip
TARPAULINS: tuple[Colour, ...] = (
    (66, 88, 128), (72, 106, 80), (176, 74, 60), (196, 190, 176), (120, 118, 112), (216, 160, 60)
)  # fmt: skip
LOADS: tuple[str, ...] = ("box", "box", "tarpaulin", "tarpaulin", "tank", "flatbed")


@dataclass(frozen=True)
class Hull:
    """A box on wheels; lengths in metres, ``y`` its lower and upper edge, ``z`` its ends."""

    x: float
    half: float
    y: Point
    z: Point
    paint: Colour
    label: int


def _draw_hull(canvas: Canvas, hull: Hull) -> tuple[Point, Point]:
    """The visible flank, the lid and the near face; gives the face's columns and rows."""
    (near, far), flank = hull.z, visible_flank(canvas, hull.x, hull.z[0])
    gain = 0.86 + 0.14 * flank * canvas.mood.side
    side = hull.x + flank * hull.half
    canvas.wall_quad(side, hull.y, hull.z, canvas.tone(hull.paint, near, gain), hull.label)
    span = (hull.x - hull.half, hull.x + hull.half)
    if hull.y[1] < canvas.camera.height:
        lid = canvas.tone(hull.paint, near, 1.1)
        canvas.floor_quad(span, (near, far), lid, hull.label, y=hull.y[1])
    x0, y0 = canvas.at(span[0], hull.y[1], near)
    x1, y1 = canvas.at(span[1], hull.y[0], near)
    canvas.box((x0, x1), (y0, y1), canvas.tone(hull.paint, near), hull.label)
    return (x0, x1), (y0, y1)


def _side(canvas: Canvas, hull: Hull) -> float:
    return hull.x + visible_flank(canvas, hull.x, hull.z[0]) * hull.half


def _draw_axles(canvas: Canvas, hull: Hull, places: tuple[float, ...], radius: float) -> None:
    for k in places:
        z = hull.z[0] + k * (hull.z[1] - hull.z[0])
        draw_wheel(canvas, _side(canvas, hull), z, radius, hull.label)


def draw_bus(canvas: Canvas, x: float, z: float, facing: int) -> None:
    """A city bus: rows of windows, a lit destination; facing 1: from behind, -1: oncoming."""
    dice = canvas.dice
    length, height = dice.between(8, 12), dice.between(2.8, 3.3)
    hull = Hull(x, 1.25, (0.35, height), (z, z + length), dice.shade_of(LIVERIES), BUS)
    draw_shadow(canvas, x, 1.3, hull.z, height)
    draw_tyres(canvas, _face_span(canvas, hull), z, canvas.scale(z) * 0.6, BUS)
    span, rows = _draw_hull(canvas, hull)
    glass = canvas.tone(mix((44, 56, 70), canvas.mood.air, 0.25), z)
    if canvas.mood.lamps_on:
        glass = (236, 216, 160)
    if abs(x) > 0.8:
        _draw_bus_flank(canvas, hull, glass)
    _draw_bus_face(canvas, hull, span, rows, facing, glass)
    draw_tyres(canvas, span, z, canvas.scale(z) * 0.32, BUS)


def _face_span(canvas: Canvas, hull: Hull) -> Point:
    near = hull.z[0]
    return canvas.at(hull.x - hull.half, 0, near)[0], canvas.at(hull.x + hull.half, 0, near)[0]


def _draw_bus_flank(canvas: Canvas, hull: Hull, glass: Paint) -> None:
    side, (z, far), height = _side(canvas, hull), hull.z, hull.y[1]
    dark = canvas.tone(mix(hull.paint, (40, 44, 52), 0.6), z)
    canvas.wall_quad(side, (height * 0.45, height * 0.87), (z + 0.3, far - 0.2), dark, BUS)
    step = (far - z) / 6
    for k in range(6):
        pane = (z + 0.35 + k * step, z + (k + 0.92) * step)
        canvas.wall_quad(side, (height * 0.48, height * 0.85), pane, glass, BUS)
    stripe = canvas.tone(mix(hull.paint, (250, 250, 250), 0.5), z)
    canvas.wall_quad(side, (height * 0.36, height * 0.41), (z, far), stripe, BUS)
    _draw_axles(canvas, hull, (0.17, 0.78), 0.48)


def _draw_bus_face(
    canvas: Canvas, hull: Hull, span: Point, rows: Point, facing: int, glass: Paint
) -> None:
    (x0, x1), (y0, y1), z = span, rows, hull.z[0]
    wide, tall = x1 - x0, y1 - y0
    roof = (y0 - 0.02 * tall, y0 + 0.04 * tall)
    pale = canvas.tone(hull.paint, z, 1.15)
    canvas.box((x0 + 0.05 * wide, x1 - 0.05 * wide), roof, pale, BUS)
    pane = (x0 + 0.05 * wide, x1 - 0.05 * wide)
    window = (y0 + 0.18 * tall, y0 + (0.62 if facing < 0 else 0.5) * tall)
    canvas.box(pane, window, glass, BUS)
    middle = (x0 + x1) / 2
    seam = canvas.tone(hull.paint, z, 0.5)
    if facing < 0:
        canvas.line([(middle, window[0]), (middle, window[1])], seam, wide * 0.02, BUS)
    sign = (255, 184, 60) if facing < 0 else canvas.tone((40, 40, 44), z)
    board = (x0 + 0.18 * wide, x1 - 0.18 * wide)
    canvas.box(board, (y0 + 0.05 * tall, y0 + 0.14 * tall), sign, BUS)
    canvas.box((x0, x1), (y1 - 0.1 * tall, y1), canvas.tone(hull.paint, z, 0.6), BUS)
    lamps = (y1 - 0.24 * tall, y1 - 0.14 * tall)
    draw_lamps(canvas, span, lamps, z, facing, BUS, lit=canvas.mood.night)


def draw_truck(canvas: Canvas, x: float, z: float, facing: int) -> None:
    """A lorry: a cab and a box, tarpaulin, tank or flatbed; facing 1: from behind, -1: oncoming."""
    dice = canvas.dice
    length = dice.between(5.5, 9.5)
    load = dice.pick(LOADS)
    cab_paint = dice.shade_of(CABS)
    top = dice.between(2.9, 3.7)
    rear = z if facing > 0 else z + 2.0
    cab_near = z + length if facing > 0 else z
    body = Hull(x, 1.24, (0.95, top), (rear, rear + length), dice.shade_of(TARPAULINS), TRUCK)
    cab = Hull(x, 1.16, (0.45, 2.7), (cab_near, cab_near + 1.9), cab_paint, TRUCK)
    draw_shadow(canvas, x, 1.3, (z, z + length + 2), top)
    if facing > 0:
        _draw_cab(canvas, cab, facing)
        _draw_load(canvas, body, load)
        _draw_tail(canvas, body)
    else:
        _draw_load(canvas, body, load)
        _draw_cab(canvas, cab, facing)


def _draw_load(canvas: Canvas, body: Hull, load: str) -> None:
    """The chassis with its wheels and what stands on it."""
    z = body.z[0]
    frame = canvas.tone((44, 44, 48), z)
    side = _side(canvas, body)
    if abs(body.x) > 0.8:
        canvas.wall_quad(side, (0.5, 1.0), body.z, frame, TRUCK)
        _draw_axles(canvas, body, (0.14, 0.3, 0.86), 0.5)
    if load == "tank":
        _draw_tank(canvas, body)
    elif load == "flatbed":
        _draw_flatbed(canvas, body)
    else:
        _draw_box(canvas, body, tarpaulin=load == "tarpaulin")


def _draw_box(canvas: Canvas, body: Hull, *, tarpaulin: bool) -> None:
    """A closed body: doors and hinges behind, straps or a stripe along the flank."""
    dice, (z, far) = canvas.dice, body.z
    paint = body.paint if tarpaulin else mix(body.paint, (232, 232, 230), 0.72)
    side, (low, high) = _side(canvas, body), body.y
    hull = Hull(body.x, body.half, body.y, body.z, paint, TRUCK)
    (x0, x1), (y0, y1) = _draw_hull(canvas, hull)
    if abs(body.x) > 0.8:
        if tarpaulin:
            strap = canvas.tone(paint, z, 0.7)
            for k in range(1, 8):
                place = z + (far - z) * k / 8
                canvas.line([canvas.at(side, y, place) for y in (low, high)], strap, 1, TRUCK)
        else:
            stripe = canvas.tone(body.paint, z)
            band = (low + (high - low) * 0.4, low + (high - low) * dice.between(0.5, 0.7))
            canvas.wall_quad(side, band, (z + 0.5, far - 0.5), stripe, TRUCK)
    _draw_doors(canvas, (x0, x1), (y0, y1), z, paint, tarpaulin=tarpaulin)


def _draw_doors(
    canvas: Canvas, x: Point, y: Point, z: float, paint: Colour, *, tarpaulin: bool
) -> None:
    """The near face of a closed body: two doors with their rods, or folds of cloth."""
    wide, tall = x[1] - x[0], y[1] - y[0]
    seam = canvas.tone(paint, z, 0.55)
    canvas.ring_box(x, y, seam, wide * 0.025, TRUCK)
    if tarpaulin:
        for k in (0.25, 0.5, 0.75):
            fold = [(x[0], y[0] + tall * k), (x[1], y[0] + tall * k)]
            canvas.line(fold, canvas.tone(paint, z, 0.85), 1, TRUCK)
        return
    for k, colour in ((0.5, seam), (0.42, (196, 196, 198)), (0.58, (196, 196, 198))):
        column = x[0] + wide * k
        rod = [(column, y[0] + 0.06 * tall), (column, y[1])]
        canvas.line(rod, canvas.tone(colour, z), wide * 0.015, TRUCK)


def _draw_tank(canvas: Canvas, body: Hull) -> None:
    """A polished cylinder: bright above, dark below, a round end."""
    z, far = body.z
    side, low = _side(canvas, body), body.y[0]
    high = min(body.y[1], 3.1)
    steel = mix(body.paint, (206, 210, 214), 0.75)
    cuts = ((0.12, 0.4, 0.62), (0.4, 0.65, 0.92), (0.65, 0.85, 1.14), (0.85, 0.97, 1.0))
    for a, b, gain in cuts:
        band = (low + (high - low) * a, low + (high - low) * b)
        canvas.wall_quad(side * 0.98, band, (z, far), canvas.tone(steel, z, gain), TRUCK)
    x, y = canvas.at(body.x, (low + high) / 2, z)
    s = canvas.scale(z)
    rx, ry = body.half * s, (high - low) / 2 * s
    canvas.disc((x, y), (rx, ry), canvas.tone(steel, z, 0.8), TRUCK)
    canvas.disc((x, y), (rx * 0.88, ry * 0.88), canvas.tone(steel, z, 1.0), TRUCK)
    canvas.disc((x, y), (rx * 0.16, ry * 0.16), canvas.tone((210, 90, 40), z), TRUCK)


def _draw_flatbed(canvas: Canvas, body: Hull) -> None:
    """Low boards around a load of crates or timber."""
    z, far = body.z
    low = body.y[0]
    cargo = canvas.dice.shade_of([(176, 132, 84), (150, 120, 90), (120, 122, 126), (196, 160, 104)])
    high = low + canvas.dice.between(0.7, 1.5)
    load = Hull(body.x, 1.0, (low, high), (z + 0.3, far - 0.5), cargo, TRUCK)
    (x0, x1), (y0, y1) = _draw_hull(canvas, load)
    dark = canvas.tone(cargo, z, 0.66)
    for k in (0.33, 0.66):
        canvas.line([(x0 + (x1 - x0) * k, y0), (x0 + (x1 - x0) * k, y1)], dark, 1, TRUCK)
    canvas.line([(x0, (y0 + y1) / 2), (x1, (y0 + y1) / 2)], dark, 1, TRUCK)
    boards = Hull(body.x, body.half, (low - 0.2, low + 0.45), body.z, body.paint, TRUCK)
    _draw_hull(canvas, boards)


def _draw_tail(canvas: Canvas, body: Hull) -> None:
    """Under the body: tyres, mudguard, lamps, plate and the red and white stripe."""
    z, span = body.z[0], _face_span(canvas, body)
    x0, x1 = span
    wide, s = x1 - x0, canvas.scale(z)
    top = canvas.at(0, body.y[0], z)[1]
    draw_tyres(canvas, span, z, 0.85 * s, TRUCK)
    canvas.box(
        (x0 + 0.03 * wide, x1 - 0.03 * wide),
        (top, top + 0.3 * s),
        canvas.tone((42, 42, 46), z),
        TRUCK,
    )
    for k in range(8):
        stripe = canvas.tone((214, 50, 44) if k % 2 else (240, 240, 238), z)
        left = x0 + wide * (0.26 + 0.06 * k)
        canvas.box((left, left + wide * 0.06), (top + 0.05 * s, top + 0.22 * s), stripe, TRUCK)
    lit = canvas.mood.night or canvas.mood.weather != "clear"
    draw_lamps(canvas, span, (top + 0.04 * s, top + 0.26 * s), z, 1, TRUCK, lit=lit)


def _draw_cab(canvas: Canvas, cab: Hull, facing: int) -> None:
    """The cab; oncoming, with windscreen, grille, mirrors and head lamps."""
    z = cab.z[0]
    span = _face_span(canvas, cab)
    draw_tyres(canvas, span, z, canvas.scale(z) * 0.6, TRUCK)
    (x0, x1), (y0, y1) = _draw_hull(canvas, cab)
    wide, tall = x1 - x0, y1 - y0
    glass = canvas.tone(mix((40, 52, 66), canvas.mood.air, 0.25), z)
    if abs(cab.x) > 0.8:
        pane = (z + 0.3, z + 1.2)
        canvas.wall_quad(_side(canvas, cab), (1.5, 2.4), pane, glass, TRUCK)
        _draw_axles(canvas, cab, (0.5,), 0.48)
    if facing > 0:
        return
    canvas.box(
        (x0 + 0.06 * wide, x1 - 0.06 * wide), (y0 + 0.12 * tall, y0 + 0.46 * tall), glass, TRUCK
    )
    shine = [
        (x0 + wide * a, y0 + tall * b)
        for a, b in ((0.5, 0.46), (0.62, 0.46), (0.78, 0.12), (0.66, 0.12))
    ]
    canvas.polygon(shine, canvas.tone((130, 146, 160), z), TRUCK)
    for k in range(4):
        row = y0 + tall * (0.54 + 0.08 * k)
        bar = canvas.tone((36, 38, 42), z)
        canvas.box((x0 + 0.2 * wide, x1 - 0.2 * wide), (row, row + tall * 0.045), bar, TRUCK)
    canvas.box((x0, x1), (y1 - 0.12 * tall, y1), canvas.tone((52, 52, 56), z), TRUCK)
    for edge in (x0 - 0.07 * wide, x1 + 0.01 * wide):
        dark = canvas.tone((34, 34, 38), z)
        canvas.box((edge, edge + 0.06 * wide), (y0 + 0.16 * tall, y0 + 0.4 * tall), dark, TRUCK)
    lamps = (y1 - 0.26 * tall, y1 - 0.14 * tall)
    draw_lamps(canvas, span, lamps, z, -1, TRUCK, lit=canvas.mood.night)
