"""Houses: two faces in perspective, roofs, windows, shops and lit windows."""

from dataclasses import dataclass

from demo.street.canvas import Canvas, Paint
from demo.street.classes import BUILDING
from demo.street.dice import Colour, Point, mix

PLASTER: tuple[Colour, ...] = (
    (176, 150, 128), (204, 192, 168), (152, 96, 80), (166, 166, 170), (212, 202, 188),
    (130, 122, 118), (194, 164, 112), (144, 154, 166), (190, 130, 110), (218, 188, 150),
    (168, 180, 160), (206, 168, 156),
)  # fmt: skip
GLASS: tuple[Colour, ...] = ((74, 88, 104), (96, 116, 136), (58, 60, 66), (84, 106, 118))
ROOFS: tuple[Colour, ...] = ((146, 78, 60), (94, 86, 86), (116, 82, 66), (84, 92, 102))
AWNINGS: tuple[Colour, ...] = ((176, 50, 50), (50, 90, 140), (60, 110, 70), (216, 184, 90))
LAMPLIGHT: tuple[Paint, ...] = ((255, 214, 130), (250, 190, 100), (240, 230, 190))


@dataclass(frozen=True)
class House:
    """A house beside the road; lengths in metres.

    Attributes:
        sign: the side of the street, -1 left, 1 right.
        x: sideways position of the face along the road.
        near: distance of its near corner.
        far: distance of its far corner.
        height: height of the eaves.
        wall: colour of the plaster.
        glass: colour of the panes.
        floors: number of storeys.
        shop: whether the ground floor is a shop.
    """

    sign: int
    x: float
    near: float
    far: float
    height: float
    wall: Colour
    glass: Colour
    floors: int
    shop: bool

    @property
    def storey(self) -> float:
        """Height of one storey, metres."""
        return self.height / self.floors


def draw_building(
    canvas: Canvas, sign: int, x: float, near: float, far: float, height: float
) -> None:
    """A house between two distances along the road, metres."""
    dice = canvas.dice
    house = House(
        sign=sign,
        x=x,
        near=max(near, 3.0),
        far=far,
        height=height,
        wall=dice.shade_of(PLASTER, 16),
        glass=dice.shade_of(GLASS, 10),
        floors=max(1, int(height / 3.1)),
        shop=dice.chance(0.35),
    )
    _cast_shadow(canvas, house)
    depth = dice.between(7, 14)
    pitched = dice.chance(0.45)
    _draw_faces(canvas, house, depth)
    if pitched:
        _draw_roof(canvas, house, depth)
    else:
        _draw_cornice(canvas, house)
    _draw_front_windows(canvas, house, depth)
    _draw_windows(canvas, house)
    if house.shop:
        _draw_shop(canvas, house)


def side_gain(canvas: Canvas, sign: int) -> float:
    """Gain of a face that looks at the road, brighter when the sun stands opposite."""
    return 1 - 0.16 * sign * canvas.mood.side


def _cast_shadow(canvas: Canvas, house: House) -> None:
    """The street is in shade on the side where the sun stands."""
    side = canvas.mood.side
    if not canvas.mood.sunny or side * house.sign <= 0:
        return
    reach = house.x - side * house.height * 0.4
    at = canvas.at
    corners = [at(house.x, 0, house.near), at(house.x, 0, house.far)]
    corners += [at(reach, 0, house.far), at(reach, 0, house.near)]
    canvas.ground_shadow("cast", corners, 1.0)


def _draw_faces(canvas: Canvas, house: House, depth: float) -> None:
    sign, x, near = house.sign, house.x, house.near
    front = canvas.tone(house.wall, near, 0.84 if sign * canvas.mood.side > 0 else 1.06)
    a, b = canvas.at(x, house.height, near), canvas.at(x + sign * depth, 0, near)
    canvas.box((min(a[0], b[0]), max(a[0], b[0])), (a[1], b[1]), front, BUILDING)
    gain, middle = side_gain(canvas, sign), (near + house.far) / 2
    span = (near, house.far)
    canvas.wall_quad(x, (0, house.height), span, canvas.tone(house.wall, middle, gain), BUILDING)
    plinth = canvas.tone(mix(house.wall, (90, 88, 86), 0.5), middle, gain)
    canvas.wall_quad(x, (0, 0.5), span, plinth, BUILDING)
    band = canvas.tone(mix(house.wall, (240, 236, 228), 0.35), middle, gain)
    for floor in range(1, house.floors):
        level = floor * house.storey
        if canvas.scale(near) * 0.14 > 1:
            canvas.wall_quad(x, (level - 0.1, level + 0.04), span, band, BUILDING)


def _draw_roof(canvas: Canvas, house: House, depth: float) -> None:
    """A pitched roof whose ridge runs along the road, the gable towards us, a chimney."""
    dice, at = canvas.dice, canvas.at
    tiles = dice.shade_of(ROOFS, 10)
    middle, eaves, ridge = (
        (house.near + house.far) / 2,
        house.height,
        house.height + dice.between(1.4, 3),
    )
    back = house.x + house.sign * depth / 2
    gable = [at(house.x, eaves, house.near), at(back, ridge, house.near)]
    gable.append(at(house.x + house.sign * depth, eaves, house.near))
    front = 0.84 if house.sign * canvas.mood.side > 0 else 1.06
    if dice.chance(0.6):
        place = house.near + (house.far - house.near) * dice.between(0.2, 0.8)
        px, py = at(back, ridge, place)
        s = canvas.scale(place)
        brick = canvas.tone((142, 92, 76), place)
        canvas.box((px - 0.35 * s, px + 0.35 * s), (py - 0.9 * s, py + 0.6 * s), brick, BUILDING)
    canvas.polygon(gable, canvas.tone(house.wall, house.near, front), BUILDING)
    slope = [at(house.x, eaves, house.near), at(house.x, eaves, house.far)]
    slope += [at(back, ridge, house.far), at(back, ridge, house.near)]
    canvas.polygon(slope, canvas.tone(tiles, middle, side_gain(canvas, house.sign)), BUILDING)
    canvas.line(slope[:2], canvas.tone(tiles, middle, 0.6), 2, BUILDING)


def _draw_cornice(canvas: Canvas, house: House) -> None:
    middle, gain = (house.near + house.far) / 2, side_gain(canvas, house.sign)
    pale = canvas.tone(mix(house.wall, (235, 230, 222), 0.4), middle, gain)
    span, lean = (house.near, house.far), -house.sign * 0.25
    canvas.wall_quad(
        house.x, (house.height - 0.35, house.height + 0.1), span, pale, BUILDING, lean=lean
    )
    edge = [canvas.at(house.x, house.height - 0.4, z) for z in span]
    canvas.line(edge, canvas.tone(house.wall, middle, 0.7), 1, BUILDING)


def _pane(canvas: Canvas, house: House, z: float) -> Paint:
    """What one window shows: lamplight, the sky, a curtain or the dark."""
    dice, mood = canvas.dice, canvas.mood
    if dice.chance(0.34 if mood.night else 0.2 if mood.time == "dusk" else 0.0):
        return dice.pick(LAMPLIGHT)
    if dice.chance(0.15):
        return canvas.tone(mix(house.glass, (220, 214, 200), 0.5), z)
    return canvas.tone(mix(house.glass, mood.air, dice.between(0, 0.4)), z, 0.95)


def _draw_front_windows(canvas: Canvas, house: House, depth: float) -> None:
    """Windows of the face that looks towards us, where it is large enough to show any."""
    s, sign = canvas.scale(house.near), house.sign
    if s * depth < 24:
        return
    for column in range(int(depth / 2.6)):
        x = house.x + sign * (1.3 + 2.6 * column)
        if not canvas.sees(x, house.near, 1):
            continue
        for floor in range(house.floors):
            px, py = canvas.at(x, (floor + 0.82) * house.storey, house.near)
            size = (0.45 * s, 0.42 * house.storey * s)
            span = (px - size[0], px + size[0])
            canvas.box(span, (py, py + size[1]), _pane(canvas, house, house.near), BUILDING)


def _draw_windows(canvas: Canvas, house: House) -> None:
    """Windows along the road; columns too narrow to be seen are left out."""
    dice, storey = canvas.dice, house.storey
    columns = min(9, max(1, int((house.far - house.near) / dice.between(1.9, 3.2))))
    step = (house.far - house.near) / columns
    half_wide, half_high = dice.between(0.22, 0.34), dice.between(0.24, 0.34)
    frame = mix(house.wall, (238, 236, 230), dice.between(0.2, 0.7))
    for column in range(columns):
        z = house.near + (column + 0.5) * step
        span = (z - step * half_wide, z + step * half_wide)
        seen = canvas.scale(1.0) * abs(house.x) * (1 / span[0] - 1 / span[1])
        if seen < 2.2 or not canvas.sees(house.x, z, 1 + step):
            continue
        for floor in range(1 if house.shop else 0, house.floors):
            middle = (floor + 0.52) * storey
            low, high = middle - storey * half_high, middle + storey * half_high
            if floor == 0 and column % 4 == 1:
                low = 0.0
            _draw_window(canvas, house, (low, high), span, frame)


def _draw_window(canvas: Canvas, house: House, y: Point, z: Point, frame: Colour) -> None:
    middle = (z[0] + z[1]) / 2
    pale = canvas.tone(frame, middle, side_gain(canvas, house.sign))
    if middle < 26:
        rim = 0.09
        canvas.wall_quad(
            house.x, (y[0] - rim, y[1] + rim), (z[0] - rim, z[1] + rim), pale, BUILDING
        )
    canvas.wall_quad(house.x, y, z, _pane(canvas, house, middle), BUILDING)
    if middle < 16:
        canvas.line([canvas.at(house.x, level, middle) for level in y], pale, 1, BUILDING)


def _draw_shop(canvas: Canvas, house: House) -> None:
    """A shop window the length of the house, its sign board and perhaps an awning."""
    dice, storey = canvas.dice, house.storey
    middle = (house.near + house.far) / 2
    inset = (house.near + 0.4, house.far - 0.4)
    lit = canvas.mood.lamps_on and dice.chance(0.6)
    glass = canvas.tone(mix(house.glass, canvas.mood.air, 0.25), middle)
    pane = dice.pick(LAMPLIGHT) if lit else glass
    canvas.wall_quad(house.x, (0.5, storey * 0.74), inset, pane, BUILDING)
    _draw_goods(canvas, house, inset, lit=lit)
    post = canvas.tone(mix(house.wall, (60, 56, 54), 0.4), middle)
    z = inset[0] + 1.6
    while z < inset[1]:
        canvas.line([canvas.at(house.x, y, z) for y in (0.4, storey * 0.74)], post, 2, BUILDING)
        z += 2.4 * max(1.0, z / 14)
    colour = dice.shade_of(AWNINGS, 15)
    board = canvas.tone(mix(colour, house.wall, 0.3), middle)
    canvas.wall_quad(house.x, (storey * 0.76, storey * 0.96), inset, board, BUILDING)
    letters = (house.near + 1.2, min(house.far - 1.2, house.near + 4.5))
    pale = canvas.tone((240, 236, 226), middle)
    canvas.wall_quad(house.x, (storey * 0.82, storey * 0.9), letters, pale, BUILDING)
    if dice.chance(0.6):
        at, out = canvas.at, house.x - house.sign * 0.8
        awning = [at(house.x, storey * 0.95, inset[0]), at(house.x, storey * 0.95, inset[1])]
        awning += [at(out, storey * 0.72, inset[1]), at(out, storey * 0.72, inset[0])]
        canvas.polygon(awning, canvas.tone(colour, middle), BUILDING)


def _draw_goods(canvas: Canvas, house: House, reach: Point, *, lit: bool) -> None:
    """What the shop window shows: shelves of coloured things, the sky mirrored above them."""
    dice, storey = canvas.dice, house.storey
    sheen = canvas.tone(mix(house.glass, canvas.mood.low, 0.5), house.near)
    if not lit:
        canvas.wall_quad(house.x, (storey * 0.55, storey * 0.74), reach, sheen, BUILDING)
    z = reach[0] + 0.3
    while z < min(reach[1], 22):
        end = min(z + dice.between(0.4, 1.2), reach[1])
        colour = mix(dice.shade_of(AWNINGS, 30), house.glass, 0.45)
        high = dice.between(0.8, 1.3)
        canvas.wall_quad(house.x, (0.55, high), (z, end), canvas.tone(colour, z), BUILDING)
        z = end + dice.between(0.2, 0.9)
