"""Scene composition: placement of objects along the street, and drawing of one whole scene."""

from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

from demo.street.barriers import draw_fence, draw_wall
from demo.street.buildings import draw_building
from demo.street.canvas import Canvas, draw_camera
from demo.street.cars import draw_car
from demo.street.dice import Dice
from demo.street.furniture import draw_lamp, draw_traffic_light, draw_traffic_sign
from demo.street.ground import Roadside, Street, draw_ground, plan_street
from demo.street.heavy import draw_bus, draw_truck
from demo.street.light import draw_mood
from demo.street.people import draw_bicycle, draw_person, draw_rider
from demo.street.plants import draw_bush, draw_hedge, draw_tree
from demo.street.sky import draw_horizon, draw_sky
from demo.street.weather import finish

Plan = list[tuple[float, Callable[[], None]]]  # distance in metres, what to draw there


def draw_scene(
    seed: int, index: int, *, wide: bool = False
) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Draw one driving scene and its exact mask; the same arguments give the same bytes.

    Args:
        seed: of the collection.
        index: of the scene in the collection.
        wide: wider ranges of light, colour and camera, for pretraining.

    Returns:
        ``image, mask``: ``[128, 256, 3]`` uint8 RGB; ``[128, 256]`` uint8, index into ``CLASSES``.
    """
    canvas = open_canvas(Dice(np.random.default_rng([seed, index]), wide=wide))
    draw_horizon(canvas)
    street = plan_street(canvas.dice)
    draw_ground(canvas, street)
    plan: Plan = []
    for side in street.sides:
        _plan_plots(canvas, plan, side)
        _plan_furniture(canvas, plan, side)
        _plan_pavement(canvas, plan, side)
        _plan_parking(canvas, plan, side)
    _plan_traffic(canvas, plan, street)
    _plan_crossing(canvas, plan, street)
    for _, draw in sorted(plan, key=lambda item: -item[0]):
        draw()
    return finish(canvas)


def open_canvas(dice: Dice) -> Canvas:
    """A canvas with only sky."""
    camera, mood = draw_camera(dice), draw_mood(dice)
    return Canvas(camera, mood, dice, draw_sky(camera, mood, dice))


def _plan_plots(canvas: Canvas, plan: Plan, side: Roadside) -> None:
    """Houses in a row, houses in gardens, or a park; and what encloses them."""
    dice = canvas.dice
    kind = dice.pick(["city", "city", "city", "suburb", "park"])
    if kind == "park":
        _plan_park(canvas, plan, side)
    else:
        _plan_houses(canvas, plan, side, city=kind == "city")
    line, sign = side.line, side.sign
    chosen = dice.between(0, 1)
    fenced, walled, hedged = (0.2, 0.14, 0.06) if kind == "city" else (0.3, 0.4, 0.14)
    near = dice.between(4, 18)
    if chosen < fenced:
        far = near + dice.between(10, 28)
        plan.append((near + 13, partial(draw_fence, canvas, line + sign * 0.05, (near, far))))
    elif chosen < fenced + walled:
        near = dice.between(4, 12)
        far, height = near + dice.between(14, 34), dice.between(1.2, 2.5)
        draw = partial(draw_wall, canvas, sign, line + sign * 0.02, (near, far), height)
        plan.append((near + 13, draw))
    elif chosen < fenced + walled + hedged:
        reach = (near, near + dice.between(6, 20))
        height = dice.between(0.8, 1.8)
        plan.append((near + 13, partial(draw_hedge, canvas, line + sign * 0.1, reach, height)))


def _plan_park(canvas: Canvas, plan: Plan, side: Roadside) -> None:
    dice, line, sign = canvas.dice, side.line, side.sign
    wood = partial(draw_hedge, canvas, line + sign * 6, (8, 90), dice.between(2, 4))
    plan.append((100, wood))
    z = dice.between(4, 8)
    while z < 55:
        plan.append((z, partial(draw_tree, canvas, line + sign * dice.between(0.8, 7), z)))
        if dice.chance(0.4):
            plan.append(
                (z + 1, partial(draw_bush, canvas, line + sign * dice.between(0.6, 4), z + 1))
            )
        z += dice.between(2.5, 7)


def _plan_houses(canvas: Canvas, plan: Plan, side: Roadside, *, city: bool) -> None:
    dice, line, sign = canvas.dice, side.line, side.sign
    z = dice.between(-6, 6)
    while z < 75:
        length = dice.between(8, 18) if city else dice.between(7, 11)
        back = dice.between(0, 0.6) if city else dice.between(2, 5)
        height = dice.between(6, 17) if city else dice.between(4, 7.5)
        if z + length > 5:
            x = line + sign * back
            house = partial(draw_building, canvas, sign, x, z, z + length, height)
            plan.append((z + length, house))
        z += length + (0 if city and dice.chance(0.8) else dice.between(2, 7))
    if not city:
        for _ in range(dice.count(1, 5)):
            z = dice.between(6, 45)
            plan.append((z, partial(draw_tree, canvas, line + sign * dice.between(0.6, 2), z)))
        for _ in range(dice.count(0, 4)):
            z = dice.between(5, 30)
            plan.append((z, partial(draw_bush, canvas, line + sign * dice.between(0.5, 1.6), z)))


def _plan_furniture(canvas: Canvas, plan: Plan, side: Roadside) -> None:
    """Trees in a row, lamps, signs and a traffic light along the kerb."""
    dice, kerb, sign, verge = canvas.dice, side.kerb, side.sign, side.verge
    if (verge or dice.chance(0.4)) and dice.chance(0.6):
        row = verge.middle if verge else kerb + sign * 0.6
        z, gap = dice.between(6, 14), dice.between(6, 13)
        while z < 60:
            plan.append((z, partial(draw_tree, canvas, row, z)))
            z += gap * dice.between(0.8, 1.3)
    z, gap = dice.between(7, 22), dice.between(16, 26)
    while z < 70:
        plan.append((z, partial(draw_lamp, canvas, sign, kerb + sign * 0.5, z)))
        z += gap
    for _ in range(dice.count(0, 2.9)):
        z, x = dice.between(6, 32), kerb + sign * dice.between(0.4, 1.1)
        plan.append((z, partial(draw_traffic_sign, canvas, x, z)))
    if dice.chance(0.55):
        z, x = dice.between(7, 26), kerb + sign * dice.between(0.3, 0.8)
        plan.append((z, partial(draw_traffic_light, canvas, sign, x, z)))


def _plan_pavement(canvas: Canvas, plan: Plan, side: Roadside) -> None:
    """People on foot, alone or in pairs, and bicycles left at the kerb."""
    dice, pavement = canvas.dice, side.pavement
    low, high = sorted((pavement.inner, pavement.outer))

    def place() -> float:
        return dice.between(low + 0.3, high - 0.2)

    for _ in range(int(dice.rng.poisson(1.5))):
        z = dice.between(6, 34)
        plan.append((z, partial(draw_person, canvas, place(), z)))
        if dice.chance(0.3):
            plan.append((z + 0.2, partial(draw_person, canvas, place(), z + 0.2)))
    if dice.chance(0.28):
        first = dice.between(6, 20)
        for k in range(dice.count(1, 4)):
            z, x = first + k * 0.8, side.kerb + side.sign * dice.between(0.6, 1.1)
            plan.append((z, partial(draw_bicycle, canvas, x, z)))


def _plan_parking(canvas: Canvas, plan: Plan, side: Roadside) -> None:
    """A row of parked cars, now and then a lorry among them."""
    dice = canvas.dice
    if not dice.chance(0.6):
        return
    facing = side.sign
    z = dice.between(5, 16)
    while z < 50:
        x = side.kerb - side.sign * 1.05
        if dice.chance(0.03) and z > 9:
            x -= side.sign * 0.3
            plan.append((z, partial(draw_truck, canvas, x, z, facing)))
            z += 7
        elif dice.chance(0.75):
            plan.append((z, partial(draw_car, canvas, x, z, facing)))
        z += dice.between(5.5, 7)


def _plan_traffic(canvas: Canvas, plan: Plan, street: Street) -> None:
    """Vehicles ahead of us in our lane and oncoming ones in theirs."""
    dice = canvas.dice
    ours, theirs = dice.between(-0.3, 0.3), street.left / 2 - 0.8
    for facing, lane, sway, first in ((1, ours, 0.2, 9.0), (-1, theirs, 0.3, 8.0)):
        z = dice.between(first, 22)
        while z < 65:
            kind = dice.between(0, 1)
            x = lane + dice.between(-sway, sway)
            if kind < 0.12:
                plan.append((z, partial(draw_bus, canvas, lane - 0.1, z, facing)))
                z += 12
            elif kind < 0.2:
                plan.append((z, partial(draw_truck, canvas, lane - 0.1, z, facing)))
                z += 11
            else:
                plan.append((z, partial(draw_car, canvas, x, z, facing)))
            z += dice.between(7, 29)


def _plan_crossing(canvas: Canvas, plan: Plan, street: Street) -> None:
    """Riders on the road and people who cross it."""
    dice = canvas.dice
    if dice.chance(0.6):
        for _ in range(dice.count(1, 2.8)):
            z = dice.between(6, 24)
            edges = [street.right - dice.between(0.4, 0.9), street.left + dice.between(0.4, 0.9)]
            x = dice.pick([*edges, dice.between(street.left, street.right)])
            plan.append((z, partial(draw_rider, canvas, x, z)))
    if dice.chance(0.2):
        first = dice.between(8, 20)
        for _ in range(dice.count(1, 4)):
            z = first + dice.between(0, 1)
            plan.append(
                (z, partial(draw_person, canvas, dice.between(street.left, street.right), z))
            )
