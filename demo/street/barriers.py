"""Fences and free-standing walls along the plots."""

from demo.street.canvas import Canvas
from demo.street.classes import FENCE, VEGETATION, WALL
from demo.street.dice import Colour, Point, mix

FENCES: tuple[Colour, ...] = (
    (64, 66, 72), (128, 94, 66), (210, 210, 208), (70, 100, 78), (156, 130, 100)
)  # fmt: skip
STONES: dict[str, tuple[Colour, ...]] = {
    "brick": ((158, 84, 66), (146, 92, 74), (172, 104, 80)),
    "stone": ((146, 138, 124), (164, 152, 132), (126, 124, 118)),
    "concrete": ((156, 156, 154), (138, 140, 140), (172, 168, 158)),
}


def draw_fence(canvas: Canvas, x: float, reach: Point) -> None:
    """A fence of bars, boards, wire or rails between two distances, metres."""
    dice, at = canvas.dice, canvas.at
    near, far = max(reach[0], 3.5), reach[1]
    height = dice.between(1.0, 1.6)
    kind = dice.pick(["bars", "bars", "boards", "rail", "wire"])
    colour = dice.shade_of(FENCES, 10)
    middle = (near + far) / 2
    outline = [at(x, 0, near), at(x, 0, far), at(x, height, far), at(x, height, near)]
    if kind == "boards":
        canvas.polygon(outline, canvas.tone(colour, middle, 0.95), FENCE)
    else:
        cover = {"bars": 0.32, "rail": 0.22, "wire": 0.4}[kind]
        canvas.veil(outline, canvas.tone(colour, middle, 0.9), FENCE, cover)
    for level in (0.12, 0.5, 0.95) if kind == "rail" else (0.1, 0.94):
        bar = (height * (level - 0.05), height * (level + 0.05))
        canvas.wall_quad(x, bar, (near, far), canvas.tone(colour, near, 1.08), FENCE)
    _draw_posts(canvas, x, (near, far), height, colour, kind)


def _draw_posts(
    canvas: Canvas, x: float, reach: Point, height: float, colour: Colour, kind: str
) -> None:
    """Upright members, fewer of them where they would run together."""
    gap = {"bars": 0.35, "boards": 0.45, "rail": 1.8, "wire": 2.0}[kind]
    thick = {"bars": 0.06, "boards": 0.05, "rail": 0.1, "wire": 0.08}[kind]
    gain = 0.72 if kind == "boards" else 1.0
    z = reach[0]
    while z < min(reach[1], 30):
        foot, head = canvas.at(x, 0, z), canvas.at(x, height * 1.04, z)
        if -5 < foot[0] < canvas.width + 5:
            tone = canvas.tone(colour, z, gain)
            canvas.line([foot, head], tone, canvas.scale(z) * thick, FENCE)
        z += gap * max(1.0, z / 8)


def draw_wall(canvas: Canvas, sign: int, x: float, reach: Point, height: float) -> None:
    """A garden or retaining wall with courses, a coping and an end that looks towards us."""
    dice = canvas.dice
    near, far = max(reach[0], 3.2), reach[1]
    kind = dice.pick(list(STONES))
    stone = dice.shade_of(STONES[kind], 12)
    gain = 1 - 0.16 * sign * canvas.mood.side
    _cast_shadow(canvas, sign, x, (near, far), height)
    step = (far - near) / 6
    for k in range(5, -1, -1):
        span = (near + k * step, near + (k + 1) * step)
        tone = canvas.tone(stone, (span[0] + span[1]) / 2, gain * dice.between(0.97, 1.03))
        canvas.wall_quad(x, (0, height), span, tone, WALL)
    _draw_courses(canvas, x, (near, far), height, stone, kind)
    coping = mix(stone, (206, 202, 192), 0.5)
    _draw_end(canvas, sign, x, near, height, stone)
    bevel = canvas.tone(coping, near, gain * 1.1)
    top = (height, height + 0.14)
    canvas.wall_quad(x - sign * 0.06, top, (near, far), bevel, WALL)
    canvas.line(
        [canvas.at(x, height, z) for z in (near, far)], canvas.tone(stone, near, 0.6), 1, WALL
    )
    if dice.chance(0.25):
        _draw_ivy(canvas, x, (near, far), height)


def _cast_shadow(canvas: Canvas, sign: int, x: float, reach: Point, height: float) -> None:
    side, at = canvas.mood.side, canvas.at
    if canvas.mood.sunny and side * sign > 0:
        out = x - side * height * 0.55
        corners = [
            at(x, 0, reach[0]),
            at(x, 0, reach[1]),
            at(out, 0, reach[1]),
            at(out, 0, reach[0]),
        ]
        canvas.ground_shadow("cast", corners, 1.0)


def _draw_courses(
    canvas: Canvas, x: float, reach: Point, height: float, stone: Colour, kind: str
) -> None:
    """Bed joints the length of the wall, upright joints staggered where they can be seen."""
    near, far = reach
    rows = {"brick": 7, "stone": 5, "concrete": 2}[kind]
    length = {"brick": 0.6, "stone": 0.9, "concrete": 2.4}[kind]
    mortar = (
        mix(stone, (214, 208, 198), 0.45) if kind == "brick" else mix(stone, (60, 58, 56), 0.45)
    )
    tone = canvas.tone(mortar, (near + far) / 3)
    for row in range(1, rows):
        y = height * row / rows
        canvas.line([canvas.at(x, y, near), canvas.at(x, y, min(far, 40))], tone, 1, WALL)
    for row in range(rows):
        low, high = height * row / rows, height * (row + 1) / rows
        z = near + length * (0.5 if row % 2 else 1.0)
        while z < min(far, 22):
            canvas.line([canvas.at(x, low, z), canvas.at(x, high, z)], tone, 1, WALL)
            z += length * max(1.0, z / 6)


def _draw_end(
    canvas: Canvas, sign: int, x: float, near: float, height: float, stone: Colour
) -> None:
    """The pillar that closes the wall on our side."""
    a, b = canvas.at(x - sign * 0.08, height + 0.18, near), canvas.at(x + sign * 0.42, 0, near)
    span = (min(a[0], b[0]), max(a[0], b[0]))
    gain = 0.8 if sign * canvas.mood.side > 0 else 1.08
    canvas.box(span, (a[1], b[1]), canvas.tone(stone, near, gain), WALL)
    cap = canvas.scale(near) * 0.16
    edge = (span[0] - cap * 0.4, span[1] + cap * 0.4)
    canvas.box(edge, (a[1], a[1] + cap), canvas.tone(mix(stone, (206, 202, 192), 0.5), near), WALL)


def _draw_ivy(canvas: Canvas, x: float, reach: Point, height: float) -> None:
    dice = canvas.dice
    for _ in range(3):
        z = dice.between(reach[0], min(reach[1], reach[0] + 10))
        s = canvas.scale(z)
        place = canvas.at(x, height, z)
        leaf = canvas.tone(dice.jitter((70, 100, 52), 10), z)
        canvas.disc(
            place, (dice.between(0.2, 0.5) * s, dice.between(0.2, 0.6) * s), leaf, VEGETATION
        )
