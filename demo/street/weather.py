"""Finishing: shadows, texture, wet roads, glows, head lamps, rain and camera artefacts."""

import math

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from demo.street import classes
from demo.street.canvas import HEIGHT, SCALE, WIDTH, Canvas
from demo.street.noise import FINE, MIDDLE

Picture = NDArray[np.float32]  # [HEIGHT, WIDTH, 3], 0 to 255
Mask = NDArray[np.uint8]  # [HEIGHT, WIDTH]

_AMPLITUDES: dict[int, tuple[float, float]] = {  # of fine and of middle noise
    classes.ROAD: (0.025, 0.02),
    classes.SIDEWALK: (0.028, 0.02),
    classes.BUILDING: (0.018, 0.026),
    classes.WALL: (0.05, 0.05),
    classes.FENCE: (0.03, 0.03),
    classes.VEGETATION: (0.095, 0.1),
    classes.TERRAIN: (0.10, 0.06),
    classes.PERSON: (0.04, 0.05),
    classes.RIDER: (0.04, 0.05),
    classes.CAR: (0.015, 0.02),
    classes.TRUCK: (0.02, 0.025),
    classes.BUS: (0.02, 0.02),
}


def _tables() -> tuple[Picture, NDArray[np.bool_]]:
    texture = np.zeros((256, 2), np.float32)
    for label, amplitudes in _AMPLITUDES.items():
        texture[label] = amplitudes
    ground = np.zeros(256, bool)
    ground[[classes.ROAD, classes.SIDEWALK, classes.TERRAIN]] = True
    return texture, ground


_TEXTURE, _GROUND = _tables()
_CENTRED_ROWS = (np.arange(HEIGHT, dtype=np.float32)[:, None] / HEIGHT - 0.5) ** 2
_CENTRED_COLUMNS = (np.arange(WIDTH, dtype=np.float32)[None] / WIDTH - 0.5) ** 2
_VIGNETTE = (1.03 - 0.28 * (_CENTRED_ROWS + _CENTRED_COLUMNS))[..., None]


def finish(canvas: Canvas) -> tuple[NDArray[np.uint8], Mask]:
    """Turn a painted canvas into the picture and mask of a scene, ``[HEIGHT, WIDTH(, 3)]``."""
    dice, mood = canvas.dice, canvas.mood
    image, mask = canvas.colours().astype(np.float32), canvas.mask()
    _shade_ground(image, mask, canvas)
    _add_texture(image, mask, canvas)
    for glow in filter(canvas.shows, canvas.glows):
        _add_glow(image, glow.x, glow.y, glow.radius, glow.colour, glow.strength)
    if mood.weather == "rain":
        _wet_road(image, mask, canvas)
    if mood.night:
        _add_head_lamps(image, canvas)
    if mood.weather == "rain":
        _add_rain(image, canvas)
    image *= _VIGNETTE
    grain = dice.between(1, 6) if mood.night else dice.between(0.5, 4)
    image += dice.rng.standard_normal((HEIGHT, WIDTH, 1), dtype=np.float32) * np.float32(grain)
    return np.clip(image, 0, 255).astype(np.uint8), mask


def _shade_ground(image: Picture, mask: Mask, canvas: Canvas) -> None:
    """Soft shadows on road, pavement and grass; pools of lamplight when it is dark."""
    cast = canvas.cast.point([k * 135 // 255 for k in range(256)])
    contact = canvas.contact.point([k * 165 // 255 for k in range(256)])
    layer = ImageChops.lighter(cast, contact).filter(ImageFilter.BoxBlur(1))
    shade = np.asarray(layer, np.float32) * (_GROUND[mask] / np.float32(255))
    image *= (1 - shade)[..., None]
    if canvas.mood.lamps_on:
        pool = np.asarray(canvas.pool.filter(ImageFilter.BoxBlur(4)), np.float32) / 255
        warm = np.array([1.5, 1.15, 0.7], np.float32) * (1.0 if canvas.mood.night else 0.25)
        image *= 1 + (pool * (mask != classes.SKY))[..., None] * warm


def _add_texture(image: Picture, mask: Mask, canvas: Canvas) -> None:
    """Grain of the surfaces; on the ground it follows the perspective."""
    dice = canvas.dice
    row, column = dice.count(0, HEIGHT), dice.count(0, WIDTH)
    amplitude = _TEXTURE[mask] * math.exp(-canvas.mood.haze * 22)  # [H, W, 2]
    if canvas.mood.weather == "fog":
        air = np.array(canvas.mood.air, np.float32)
        amplitude *= np.clip(np.abs(image - air).mean(-1, keepdims=True) / 45, 0.1, 1)
    gain = 1 + amplitude[..., 0] * FINE[row : row + HEIGHT, column : column + WIDTH]
    gain += amplitude[..., 1] * MIDDLE[column % HEIGHT :, row:][:HEIGHT, :WIDTH]
    image *= gain[..., None]
    _add_ground_texture(image, mask, canvas)


def _add_ground_texture(image: Picture, mask: Mask, canvas: Canvas) -> None:
    """Stains and tufts laid out in metres, so that they shrink towards the horizon."""
    cam, dice = canvas.camera, canvas.dice
    first = int(cam.horizon / SCALE) + 4
    rows = np.arange(first, HEIGHT, dtype=np.float32) * SCALE - cam.horizon
    z = cam.focal * cam.height / rows  # metres ahead
    columns = np.arange(WIDTH, dtype=np.float32) * SCALE - cam.centre
    x = columns[None] * (z / cam.focal)[:, None] - (cam.curve * z * z)[:, None]  # metres right
    across = (x * 30 + dice.between(0, 500)).astype(np.int32) % (2 * WIDTH)
    ahead = (z * 12 + dice.between(0, 250)).astype(np.int32) % (2 * HEIGHT)
    tile = MIDDLE[ahead[:, None], across] * np.clip(9 / z, 0.2, 1)[:, None]
    region = mask[first:]
    strength = np.where(region == classes.TERRAIN, 0.07, 0.035) * _GROUND[region]
    image[first:] *= (1 + strength * tile)[..., None].astype(np.float32)


def _add_glow(
    image: Picture,
    x: float,
    y: float,
    radius: float,
    colour: tuple[float, float, float],
    strength: float,
) -> None:
    """Add a round light; place and radius in canvas pixels."""
    x, y, radius = x / SCALE, y / SCALE, max(1.0, radius / SCALE * 1.6)
    reach = int(3 * radius) + 1
    left, right = max(0, int(x) - reach), min(WIDTH, int(x) + reach + 1)
    top, bottom = max(0, int(y) - reach), min(HEIGHT, int(y) + reach + 1)
    if left >= right or top >= bottom:
        return
    across = np.exp(-(((np.arange(left, right) - x) / radius) ** 2), dtype=np.float32)
    down = np.exp(-(((np.arange(top, bottom) - y) / radius) ** 2), dtype=np.float32)
    light = np.asarray(colour, np.float32) * np.float32(strength * 0.8)
    image[top:bottom, left:right] += (down[:, None] * across[None])[..., None] * light


def _wet_road(image: Picture, mask: Mask, canvas: Canvas) -> None:
    """Mirror what stands above the horizon on the road, smeared downwards as by ripples."""
    horizon = int(canvas.camera.horizon / SCALE) + 1
    tall = HEIGHT - horizon
    mirror = np.clip(image[max(0, horizon - tall) : horizon][::-1], 0, 255).astype(np.uint8)
    tall = len(mirror)
    thin = Image.fromarray(mirror).reduce((1, 5))
    smear = thin.resize((WIDTH, tall), Image.Resampling.BILINEAR)
    fade = np.linspace(1, 0, tall, dtype=np.float32)[:, None] ** 0.7
    row = canvas.dice.count(0, HEIGHT)
    puddles = np.clip(0.75 + 0.25 * MIDDLE[row : row + tall, :WIDTH], 0.3, 1.2)
    road = mask[horizon : horizon + tall] == classes.ROAD
    wet = road * fade * puddles * np.float32(canvas.dice.between(0.32, 0.6))
    view = image[horizon : horizon + tall]
    view += (np.asarray(smear, np.float32) - view) * wet[..., None]


def _add_head_lamps(image: Picture, canvas: Canvas) -> None:
    """The light of our own car on the road ahead."""
    horizon = int(canvas.camera.horizon / SCALE)
    rows = np.arange(HEIGHT, dtype=np.float32)[:, None]
    columns = np.arange(WIDTH, dtype=np.float32)[None]
    spread = 20 + 1.3 * np.clip(rows - horizon, 0, None)
    cone = np.exp(-(((columns - canvas.camera.centre / SCALE) / spread) ** 2))
    cone = cone * np.exp(-(((rows - horizon - 22) / 24) ** 2)) * (rows > horizon)
    warm = np.array([1.0, 0.95, 0.8], np.float32) * canvas.dice.between(0.5, 1.3)
    image *= 1 + cone[..., None].astype(np.float32) * warm.astype(np.float32)


def _add_rain(image: Picture, canvas: Canvas) -> None:
    """Slanting streaks."""
    dice = canvas.dice
    layer = Image.new("L", (WIDTH, HEIGHT))
    pen = ImageDraw.Draw(layer)
    slant = dice.between(-4, 4)
    places = dice.rng.random((dice.count(40, 140), 3)) * (WIDTH, HEIGHT, 7)
    for x, y, length in places.tolist():
        end = (x + slant * length / 7, y + 3 + length)
        pen.line((x, y, *end), fill=dice.count(30, 90))
    streaks = np.asarray(layer, np.float32)[..., None] / 255
    image += (np.float32(200) - image) * streaks * np.float32(0.6)
