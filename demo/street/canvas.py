"""Camera and canvas: projection, painting with labels, shadows and glows.

Everything is placed in metres in a pinhole camera's world (x right, y up, z forward) and painted
far to near at twice the size. One RGBA image contains the colour in RGB and the class index in A,
so that colour and label always match.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from demo.street.dice import Colour, Dice, Point
from demo.street.light import Mood

WIDTH, HEIGHT, SCALE = 256, 128, 2
Paint = tuple[int, int, int]


@dataclass(frozen=True)
class Camera:
    """A level pinhole camera over a road that may bend; lengths in canvas pixels or metres.

    Attributes:
        focal: focal length, pixels of the canvas.
        centre: column of the vanishing point, pixels of the canvas.
        horizon: row of the horizon, pixels of the canvas.
        height: the camera's height above the road, metres.
        curve: sideways shift of the road per squared metre ahead, 1 / metres.
    """

    focal: float
    centre: float
    horizon: float
    height: float
    curve: float


def draw_camera(dice: Dice) -> Camera:
    """Draw a camera like one behind a windscreen."""
    wide, width, height = dice.wide, WIDTH * SCALE, HEIGHT * SCALE
    return Camera(
        focal=width * (dice.between(0.62, 0.95) if wide else dice.between(0.7, 0.85)),
        centre=width * dice.between(0.42, 0.58),
        horizon=height * (dice.between(0.36, 0.54) if wide else dice.between(0.4, 0.5)),
        height=dice.between(1.2, 2.1) if wide else dice.between(1.35, 1.7),
        curve=dice.between(-1, 1) ** 3 * 0.006,
    )


class Glow(NamedTuple):
    """A point of light: canvas column and row, radius in canvas pixels, colour, strength.

    ``source`` is the colour of the lamp itself: if something covers it, there is no glow.
    """

    x: float
    y: float
    radius: float
    colour: Colour
    strength: float
    source: Paint


def _layer() -> Image.Image:
    return Image.new("L", (WIDTH, HEIGHT))


@dataclass
class Canvas:
    """The image being painted, with the camera, light and randomness of its scene.

    Attributes:
        sheet: colour and class index, RGBA, twice the size of the scene.
        cast: shadows on the ground, 0 to 255, size of the scene.
        contact: dark areas under objects on the ground, likewise.
        pool: where street lamps light the ground, likewise.
        glows: points of light, added when the scene is finished.
    """

    camera: Camera
    mood: Mood
    dice: Dice
    sheet: Image.Image
    cast: Image.Image = field(default_factory=_layer)
    contact: Image.Image = field(default_factory=_layer)
    pool: Image.Image = field(default_factory=_layer)
    glows: list[Glow] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.width, self.height = self.sheet.size
        self._pen = ImageDraw.Draw(self.sheet)
        self._pens = {
            name: ImageDraw.Draw(layer)
            for name, layer in (("cast", self.cast), ("contact", self.contact), ("pool", self.pool))
        }

    def at(self, x: float, y: float, z: float) -> Point:
        """Column and row on the canvas of a point of the world, metres."""
        cam = self.camera
        s = cam.focal / z
        return cam.centre + s * (x + cam.curve * z * z), cam.horizon + s * (cam.height - y)

    def scale(self, z: float) -> float:
        """Canvas pixels per metre at a distance of ``z`` metres."""
        return self.camera.focal / z

    def sees(self, x: float, z: float, margin: float) -> bool:
        """Whether anything within ``margin`` metres of a point may be inside the picture."""
        column, _ = self.at(x, 0, z)
        slack = margin * self.scale(z)
        return -slack < column < self.width + slack

    def tone(self, colour: Colour, z: float = 0.0, gain: float = 1.0) -> Paint:
        """Colour of a surface in this scene's light, through ``z`` metres of its air."""
        mood = self.mood
        clear = math.exp(-mood.haze * z)
        (r, g, b), (sr, sg, sb), (ar, ag, ab) = colour, mood.sun, mood.air
        lit, fog = gain * clear, 1 - clear
        red, green, blue = r * sr * lit + ar * fog, g * sg * lit + ag * fog, b * sb * lit + ab * fog
        return (
            0 if red < 0 else 255 if red > 255 else int(red),
            0 if green < 0 else 255 if green > 255 else int(green),
            0 if blue < 0 else 255 if blue > 255 else int(blue),
        )

    def polygon(self, points: Sequence[Point], colour: Paint, label: int) -> None:
        """Fill a polygon given in canvas pixels."""
        self._pen.polygon(points, fill=(*colour, label))

    def wall_quad(
        self, x: float, y: Point, z: Point, colour: Paint, label: int, *, lean: float = 0.0
    ) -> None:
        """Fill an upright rectangle along the road: ``y`` and ``z`` are its (low, high) ends.

        ``lean`` moves its upper edge sideways, metres.
        """
        at = self.at
        low, high, top = y[0], y[1], x + lean
        points = [at(x, low, z[0]), at(x, low, z[1]), at(top, high, z[1]), at(top, high, z[0])]
        self._pen.polygon(points, fill=(*colour, label))

    def floor_quad(self, x: Point, z: Point, colour: Paint, label: int, *, y: float = 0.0) -> None:
        """Fill a level rectangle ``y`` metres above the road."""
        at = self.at
        points = [at(x[0], y, z[0]), at(x[1], y, z[0]), at(x[1], y, z[1]), at(x[0], y, z[1])]
        self._pen.polygon(points, fill=(*colour, label))

    def box(self, x: Point, y: Point, colour: Paint, label: int) -> None:
        """Fill an upright rectangle given in canvas pixels; at least half a pixel wide."""
        if y[1] >= y[0]:
            self._pen.rectangle((x[0], y[0], max(x[1], x[0] + 0.5), y[1]), fill=(*colour, label))

    def ring_box(self, x: Point, y: Point, colour: Paint, width: float, label: int) -> None:
        """Draw the outline of an upright rectangle given in canvas pixels."""
        if x[1] >= x[0] and y[1] >= y[0]:
            edge = max(1, round(width))
            self._pen.rectangle((x[0], y[0], x[1], y[1]), outline=(*colour, label), width=edge)

    def disc(self, centre: Point, radius: Point, colour: Paint, label: int) -> None:
        """Fill an ellipse given in canvas pixels."""
        (x, y), (a, b) = centre, radius
        self._pen.ellipse((x - a, y - b, x + a, y + b), fill=(*colour, label))

    def ring(self, centre: Point, radius: Point, colour: Paint, label: int, width: float) -> None:
        """Draw the outline of an ellipse given in canvas pixels."""
        (x, y), (a, b) = centre, radius
        edge = max(1, round(width))
        self._pen.ellipse((x - a, y - b, x + a, y + b), outline=(*colour, label), width=edge)

    def line(self, points: Sequence[Point], colour: Paint, width: float, label: int) -> None:
        """Draw a line given in canvas pixels."""
        self._pen.line(points, fill=(*colour, label), width=max(1, round(width)))

    def veil(self, points: Sequence[Point], colour: Paint, label: int, cover: float) -> None:
        """Label a see-through polygon as a whole, as annotators do with fences and wheels.

        Args:
            points: corners in canvas pixels.
            colour: colour of the thin veil.
            label: class index of every pixel in the polygon.
            cover: share of the veil's colour; 0: none.
        """
        left = max(0, int(min(p[0] for p in points)))
        top = max(0, int(min(p[1] for p in points)))
        right = min(self.width, int(max(p[0] for p in points)) + 2)
        bottom = min(self.height, int(max(p[1] for p in points)) + 2)
        if left >= right or top >= bottom:
            return
        stencil = Image.new("L", (right - left, bottom - top))
        ImageDraw.Draw(stencil).polygon([(x - left, y - top) for x, y in points], fill=255)
        region = self.sheet.crop((left, top, right, bottom))
        painted = Image.blend(region, Image.new("RGBA", region.size, (*colour, 0)), cover)
        painted.putalpha(label)
        region.paste(painted, (0, 0), stencil)
        self.sheet.paste(region, (left, top))

    def ground_shadow(self, layer: str, points: Sequence[Point], strength: float) -> None:
        """Mark a polygon of the ground, canvas pixels, in ``cast``, ``contact`` or ``pool``."""
        corners = [(x / SCALE, y / SCALE) for x, y in points]
        self._pens[layer].polygon(corners, fill=int(255 * strength))

    def ground_spot(self, layer: str, place: Point, radius: Point, strength: float) -> None:
        """Mark an ellipse of the ground at ``(x, z)`` metres, radii ``(across, ahead)`` metres."""
        x, z = place
        column, row = self.at(x, 0, z)
        s = self.scale(z) / SCALE
        a, b = radius[0] * s, max(0.6, radius[1] * s * self.camera.height / z)
        px, py = column / SCALE, row / SCALE
        self._pens[layer].ellipse((px - a, py - b, px + a, py + b), fill=int(255 * strength))

    def glow(
        self, centre: Point, radius: float, colour: Colour, strength: float, *, source: Paint
    ) -> None:
        """Record a point of light to be added at the end; ``source``: colour at its centre."""
        self.glows.append(Glow(centre[0], centre[1], radius, colour, strength, source))

    def shows(self, glow: Glow) -> bool:
        """Whether the lamp is inside the picture and nothing was painted over it."""
        x, y = int(glow.x), int(glow.y)
        if not (0 <= x < self.width and 0 <= y < self.height):
            return False
        return self.sheet.getpixel((x, y))[:3] == glow.source  # type: ignore[index]

    def colours(self) -> NDArray[np.uint8]:
        """The colours at the scene's size, ``[HEIGHT, WIDTH, 3]`` uint8."""
        return np.asarray(self.sheet.convert("RGB").reduce(SCALE))

    def mask(self) -> NDArray[np.uint8]:
        """The class index of each pixel, ``[HEIGHT, WIDTH]`` uint8."""
        return np.asarray(self.sheet.getchannel("A"))[1::SCALE, 1::SCALE].copy()
