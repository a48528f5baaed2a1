"""The sky and what stands on the horizon; painted first on every canvas."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from demo.street.canvas import HEIGHT, SCALE, WIDTH, Camera, Canvas
from demo.street.classes import BUILDING, SKY, TERRAIN, VEGETATION
from demo.street.dice import Dice, mix
from demo.street.light import Mood
from demo.street.noise import COARSE, FINE, MIDDLE


def draw_sky(camera: Camera, mood: Mood, dice: Dice) -> Image.Image:
    """A fresh sheet, RGBA at the canvas size, covered with sky."""
    rows = np.arange(HEIGHT, dtype=np.float32) / (camera.horizon / SCALE)
    fall = np.clip(rows, 0, 1)[:, None, None] ** dice.between(0.7, 1.5)  # [H, 1, 1]
    top, low = np.asarray(mood.top, np.float32), np.asarray(mood.low, np.float32)
    image = np.broadcast_to(top + (low - top) * fall, (HEIGHT, WIDTH, 3)).copy()
    if mood.night and mood.weather == "clear":
        _add_stars(image, dice)
    _add_clouds(image, fall, mood, dice)
    if mood.sunny:
        _add_sun(image, camera, mood, dice)
    small = Image.fromarray(np.clip(image, 0, 255).astype(np.uint8))
    # Nearest: the sheet is averaged down again, which gives back the very same sky.
    sheet = small.resize((WIDTH * SCALE, HEIGHT * SCALE), Image.Resampling.NEAREST)
    sheet.putalpha(SKY)
    return sheet


def _add_stars(image: NDArray[np.float32], dice: Dice) -> None:
    row, column = dice.count(0, HEIGHT), dice.count(0, WIDTH)
    tile = FINE[row : row + HEIGHT, column : column + WIDTH]
    image += np.clip((tile - 3.2) * 130, 0, 150)[..., None]


def _add_clouds(
    image: NDArray[np.float32], fall: NDArray[np.float32], mood: Mood, dice: Dice
) -> None:
    """Veil the sky with noise; a brighter copy from the sun's side gives the clouds a body."""
    row, column = dice.count(0, HEIGHT), dice.count(8, WIDTH - 8)
    field = COARSE * 0.75 + MIDDLE * 0.25
    tile = field[row : row + HEIGHT, column : column + WIDTH]
    shift = 5 if mood.side > 0 else -5
    lit = tile - field[row : row + HEIGHT, column + shift : column + shift + WIDTH]
    thick = np.clip((tile - dice.between(-0.4, 1.2)) * 0.9, 0, 1)[..., None]
    cover = thick * dice.between(0.3, 0.95) * (1 - 0.5 * fall)  # [H, W, 1]
    relief = 4 if mood.night else 16
    cloud = np.asarray(mood.cloud, np.float32) + np.clip(lit, -1, 1)[..., None] * relief
    image += (cloud - image) * cover


def _add_sun(image: NDArray[np.float32], camera: Camera, mood: Mood, dice: Dice) -> None:
    """A disc with a halo where the light comes from."""
    column = WIDTH * (0.5 + 0.5 * mood.side)
    row = (
        camera.horizon
        / SCALE
        * (dice.between(0.1, 0.6) if mood.time == "day" else dice.between(0.55, 0.95))
    )
    dx = (np.arange(WIDTH, dtype=np.float32) - column)[None] ** 2
    dy = (np.arange(HEIGHT, dtype=np.float32) - row)[:, None] ** 2
    halo = np.exp(-dy / 2400) * np.exp(-dx / 2400) * dice.between(20, 70)
    disc = np.clip(5 - np.sqrt(dx + dy), 0, 1) * (150 if dice.chance(0.6) else 0)
    image += (halo + disc)[..., None] * np.array([1, 0.86, 0.6], np.float32)


def draw_horizon(canvas: Canvas) -> None:
    """Hills, then houses and woods far away, so that the street has a background."""
    dice = canvas.dice
    if dice.chance(0.6):
        _draw_hills(canvas)
    base, x = canvas.camera.horizon + 3, -10.0
    green = dice.chance(0.5)
    while x < canvas.width:
        wide = dice.between(12, 50)
        green ^= dice.chance(0.3)
        if green:
            _draw_wood(canvas, x, base, wide)
        else:
            _draw_block(canvas, x, base, wide * 0.9)
        x += wide
    soil = canvas.tone((110, 116, 96), 80)
    canvas.box((0, canvas.width), (base - 2, base + 3), soil, TERRAIN)


def _draw_hills(canvas: Canvas) -> None:
    """Two ridges that fade into the air."""
    dice = canvas.dice
    base = canvas.camera.horizon + 3
    for height, veil in ((dice.between(16, 34), 0.68), (dice.between(8, 18), 0.48)):
        row, start = dice.count(0, HEIGHT), dice.count(0, WIDTH)
        ridge = COARSE[row, start : start + WIDTH : 8]
        points = [
            (k * 16.6, base - height * (0.6 + 0.25 * float(value))) for k, value in enumerate(ridge)
        ]
        colour = mix(canvas.tone((74, 100, 66), 30), canvas.mood.air, veil)
        corners = [*points, (canvas.width + 20, base), (0, base)]
        canvas.polygon(corners, (int(colour[0]), int(colour[1]), int(colour[2])), VEGETATION)


def _draw_wood(canvas: Canvas, x: float, base: float, wide: float) -> None:
    dice = canvas.dice
    crowns = [(x + wide * k / 8, base - dice.between(5, 15)) for k in range(9)]
    leaf = canvas.tone(dice.jitter((66, 92, 52), 8), 70)
    canvas.polygon([*crowns, (x + wide, base), (x, base)], leaf, VEGETATION)


def _draw_block(canvas: Canvas, x: float, base: float, wide: float) -> None:
    """A distant house with rows of windows, or a church with its spire."""
    dice, night = canvas.dice, canvas.mood.night
    top = base - dice.between(8, 38)
    wall = dice.jitter((140, 132, 126), 18)
    canvas.box((x, x + wide), (top, base), canvas.tone(wall, 75), BUILDING)
    if dice.chance(0.35):
        roof = [(x, top), (x + wide / 2, top - dice.between(3, 8)), (x + wide, top)]
        canvas.polygon(roof, canvas.tone((132, 84, 70), 75), BUILDING)
    dim = canvas.tone(wall, 75, 0.8)
    for row in np.arange(top + 3, base - 4, 5.0).tolist():
        for column in np.arange(x + 3, x + wide - 4, 6.0).tolist():
            pane = (200, 170, 90) if night and dice.chance(0.4) else dim
            canvas.box((column, column + 3), (row, row + 1.5), pane, BUILDING)
