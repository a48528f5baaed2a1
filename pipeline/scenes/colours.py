"""Colours of a user's classes: by name or synonym those of Cityscapes, a tree is green."""

import colorsys
import math
import re
from collections.abc import Sequence

from pipeline.scenes.classes import LABEL_SPACES

Colour = tuple[int, int, int]
# Names that data sets and people use, each by the class of Cityscapes whose colour it has.
_SYNONYMS = {
    "road": "street|roadway|drivable area|asphalt|lane|highway|driveway",
    "sidewalk": "pavement|footpath|footway|walkway|curb|kerb|path|crosswalk",
    "building": "house|skyscraper|tower|facade|shop",
    "wall": "barrier|tunnel",
    "fence": "railing|guardrail|gate",
    "pole": "column|post|lamp|street lamp",
    "traffic light": "light|signal|stoplight",
    "traffic sign": "sign|signboard|symbol",
    "vegetation": "tree|bush|shrub|hedge|plant|forest|nature",
    "terrain": "grass|lawn|field|ground|earth|soil|sand|dirt|meadow",
    "sky": "cloud",
    "person": "pedestrian|people|human|man|woman|child",
    "rider": "cyclist|bicyclist|motorcyclist|biker",
    "car": "vehicle|automobile|suv|taxi",
    "truck": "lorry|trailer",
    "bus": "coach|minibus|caravan",
    "train": "tram|streetcar|rail",
    "motorcycle": "motorbike|scooter|moped|motor",
    "bicycle": "bike|cycle",
}
_CLASS_OF = {synonym: name for name, text in _SYNONYMS.items() for synonym in text.split("|")}
_OWN = {
    i.name: i.colour for name in ("wilddash2", "cityscapes") for i in LABEL_SPACES[name].classes
}
_SHADES = (0.0, 0.4, -0.4, 0.65, -0.65, 0.2, -0.2)  # towards white, or black if negative


def class_colours(
    names: Sequence[str], words: Sequence[Sequence[str]], written: Sequence[Colour | None]
) -> list[Colour]:
    """The colour of each class, by index.

    The written one; else that of Cityscapes or WildDash 2 for a name of theirs; else that of the
    class that the name, or a word for it, is a synonym of, in another shade if it is taken; else
    one that is far from all of these, if there is.

    Args:
        names: class names.
        words: the words of each class for CLIP.
        written: colours that the user chose, None for the others.
    """
    known = [_OWN.get(_plain(name)) for name in names]
    found = [own or of_name for own, of_name in zip(written, known, strict=True)]
    taken: set[Colour] = {colour for colour in found if colour is not None}
    for index, name in enumerate(names):
        base = next((c for one in (name, *words[index]) if (c := _meant(one))), None)
        if found[index] is None and base is not None:
            shades = (_shade(base, share) for share in _SHADES)
            free = next((colour for colour in shades if colour not in taken), None)
            found[index] = free
            taken |= {free} if free else set()
    for index in range(len(names)):
        if found[index] is None:
            generated = [_generated(index + skip) for skip in range(len(names))]
            far = (one for one in generated if all(_far(one, other) for other in taken))
            picked = next(far, next(one for one in generated if one not in taken))
            found[index] = picked
            taken.add(picked)
    return [colour for colour in found if colour is not None]


def _plain(name: str) -> str:
    """A name in lower case, its words separated by single spaces."""
    return " ".join(re.split(r"[\W_]+", name.casefold())).strip()


def _meant(name: str) -> Colour | None:
    """The colour of the class that a name means: as a whole, or by its last word; or plural."""
    plain = _plain(name)
    for one in (plain, plain.rpartition(" ")[2]):
        for singular in (one, one.removesuffix("s"), one.removesuffix("es")):
            colour = _OWN.get(_CLASS_OF.get(singular, singular))
            if colour is not None:
                return colour
    return None


def _shade(colour: Colour, share: float) -> Colour:
    """A colour, lighter (positive) or darker by a share."""
    end = 255 if share > 0 else 0
    red, green, blue = (round(part + abs(share) * (end - part)) for part in colour)
    return red, green, blue


def _far(colour: Colour, other: Colour) -> bool:
    """Whether a person can tell two colours apart in a legend."""
    return math.dist(colour, other) >= 60


def _generated(index: int) -> Colour:
    """A colour for each index: with the golden ratio, successive hues stay far apart."""
    hue = index * 0.618034 % 1.0
    shade = colorsys.hsv_to_rgb(hue, 0.55 + 0.4 * (index % 2), 0.95 - 0.3 * (index % 3) / 2)
    red, green, blue = (round(255 * part) for part in shade)
    return red, green, blue
