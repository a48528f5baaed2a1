"""Time of day, weather and the light they give."""

from dataclasses import dataclass

from demo.street.dice import Colour, Dice, mix

SUN: dict[str, Colour] = {
    "day": (1.04, 1.0, 0.95),
    "overcast": (0.78, 0.8, 0.83),
    "dusk": (0.86, 0.66, 0.56),
    "night": (0.27, 0.29, 0.41),
}
SKY_COLOURS: dict[str, tuple[tuple[Colour, Colour, Colour], ...]] = {  # top, at the horizon, clouds
    "day": (
        ((70, 130, 214), (190, 219, 242), (252, 252, 254)),
        ((58, 118, 196), (216, 226, 232), (250, 248, 244)),
        ((104, 158, 220), (206, 228, 240), (255, 255, 255)),
    ),
    "overcast": (((146, 155, 166), (208, 212, 216), (230, 232, 235)),),
    "dusk": (
        ((80, 88, 154), (252, 180, 122), (252, 152, 132)),
        ((70, 64, 122), (240, 142, 118), (255, 190, 140)),
        ((96, 112, 160), (250, 206, 146), (236, 160, 150)),
    ),
    "night": (
        ((8, 12, 32), (40, 45, 72), (46, 48, 66)),
        ((12, 10, 26), (58, 48, 62), (52, 46, 60)),
    ),
}


@dataclass(frozen=True)
class Mood:
    """The light of one scene.

    Attributes:
        time: day, overcast, dusk or night.
        weather: clear, fog or rain.
        sun: gain of each colour channel on a sunlit surface.
        side: where the sun stands, -1 (left) to 1 (right).
        haze: share of the light lost to the air per metre.
        top: colour of the sky overhead.
        low: colour of the sky at the horizon.
        cloud: colour of the clouds.
        air: colour that distant things fade to.
    """

    time: str
    weather: str
    sun: Colour
    side: float
    haze: float
    top: Colour
    low: Colour
    cloud: Colour
    air: Colour

    @property
    def night(self) -> bool:
        """Whether windows and lamps are the brightest things around."""
        return self.time == "night"

    @property
    def lamps_on(self) -> bool:
        """Whether street lamps are lit."""
        return self.time in ("dusk", "night")

    @property
    def sunny(self) -> bool:
        """Whether things cast a shadow with a direction."""
        return self.time in ("day", "dusk") and self.weather == "clear"


def draw_mood(dice: Dice) -> Mood:
    """Draw a time of day, a weather and their colours."""
    wide = dice.wide
    time = str(dice.rng.choice(list(SUN), p=[0.42, 0.26, 0.16, 0.16]))
    weather = str(dice.rng.choice(["clear", "fog", "rain"], p=[0.68, 0.14, 0.18]))
    if time == "night" and weather == "fog":
        weather = "clear"
    gain = dice.between(0.7, 1.3) if wide else dice.between(0.88, 1.12)
    tint = 0.14 if wide else 0.05
    red, green, blue = (c * gain * dice.between(1 - tint, 1 + tint) for c in SUN[time])
    hazes = {"clear": (0.001, 0.006), "fog": (0.018, 0.05), "rain": (0.006, 0.014)}
    amount = 5 if time == "night" else 14
    top, low, cloud = (dice.jitter(c, amount) for c in dice.pick(SKY_COLOURS[time]))
    if weather != "clear":
        grey = sum(low) / 3
        top, low = (mix(c, (grey, grey, grey * 1.02), 0.55) for c in (top, low))
    return Mood(
        time=time,
        weather=weather,
        sun=(red, green, blue),
        side=dice.between(-1, 1),
        haze=dice.between(*hazes[weather]),
        top=top,
        low=low,
        cloud=cloud,
        air=mix(low, top, 0.12),
    )
