"""Fonts of pictures: DejaVu Sans as matplotlib ships it, or a file that ``pictures.font`` names.

One font for a process, as with matplotlib's own settings: names of classes and photos are written
in many places. matplotlib itself is imported late, for it takes a moment.
"""

import logging
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

from PIL import ImageFont

from pipeline.system.text import error_text

log = logging.getLogger("carb")
FONT = "DejaVu Sans"
PARAMETER = "params.yaml: pictures.font"
BOX = "\u25a1"
NAMED = 20  # letters in a warning
_chosen: list[Path] = []  # the font of this process; empty: DejaVu Sans


def use_font(path: str | None, texts: Iterable[str], *, setting: str = PARAMETER) -> None:
    """Draw all further pictures in one font. Says in one line which letters it lacks.

    Args:
        path: a file of Pillow's and matplotlib's kinds (.ttf, .otf, .ttc); None: DejaVu Sans.
        texts: what will be written, such as names of classes and photos.
        setting: what names the font, for messages.

    Raises:
        ValueError: there is no such file, or it is no font.
    """
    _chosen[:] = []
    if path is not None:
        file = Path(path)
        _check(file, setting)
        _chosen.append(file)
    known = letters(font_file())
    if lacking := sorted({letter for text in texts for letter in text if _shows(letter)} - known):
        more = ", ..." if len(lacking) > NAMED else ""
        log.info(  # no warning: of several processes the first one alone is to say it
            "%s: %d letters of names of classes or photos are missing in %s and drawn as boxes: "
            "%s%s; name the file of a font that has them",
            setting,
            len(lacking),
            path or FONT,
            " ".join(lacking[:NAMED]),
            more,
        )


def _check(path: Path, setting: str) -> None:
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise ValueError(f"{setting}: {path}: {found}; name a .ttf, .otf or .ttc file")
    try:
        letters(path)
        ImageFont.truetype(path, 16).getmask("a")
    except Exception as error:  # FreeType's and matplotlib's own kinds
        raise ValueError(
            f"{setting}: {path}: not readable as a font ({error_text(error)}); name a .ttf, .otf "
            "or "
            ".ttc file"
        ) from None


def _shows(letter: str) -> bool:
    """Whether a letter is to be seen: no space, control character, joiner or lone surrogate."""
    return unicodedata.category(letter)[0] not in "ZC" and not "\ufe00" <= letter <= "\ufe0f"


def font_file() -> Path:
    """The file of the font in use."""
    if _chosen:
        return _chosen[0]
    import matplotlib

    return Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


def picture_font(size: int) -> ImageFont.FreeTypeFont:
    """The font in use, for Pillow. Where Pillow has Raqm, Arabic and Indic letters are joined."""
    return _loaded(font_file(), size)


@lru_cache(maxsize=32)
def _loaded(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@lru_cache(maxsize=4)
def letters(path: Path) -> frozenset[str]:
    """The letters that a font has; of a collection (.ttc) those of its first."""
    from matplotlib.ft2font import FT2Font

    return frozenset(map(chr, FT2Font(str(path)).get_charmap()))


def chart_settings() -> dict[Any, Any]:
    """The font in use, for matplotlib, to which ``$`` is a dollar sign then."""
    settings: dict[Any, Any] = {"text.parse_math": False}
    if _chosen:
        settings["font.family"] = _family(_chosen[0])
    return settings


@lru_cache(maxsize=4)
def _family(path: Path) -> str:
    """A name by which matplotlib finds this file and no installed font that is named like it."""
    from matplotlib.font_manager import FontEntry, fontManager

    name = f"carb {path.resolve()}"
    for weight in (400, 700):  # the file stands for bold, too
        fontManager.ttflist.append(FontEntry(str(path.resolve()), name=name, weight=weight))
    return name


def plain(text: str) -> str:
    """A text in one line, with a box for each letter that the font in use lacks.

    Names of files may hold any bytes. What matplotlib draws in place of a missing letter has no
    width, or three times that of a letter, by its version.
    """
    known = letters(font_file())
    box = BOX if BOX in known else "?"
    text = re.sub(r"[\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]", " ", text)
    return "".join(letter if letter in known else box if _shows(letter) else "" for letter in text)


def ended(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, or its end where it is too wide; keys of photos differ at their ends."""
    whole = kept = plain(text)
    while kept and font.getlength(kept if kept == whole else f"...{kept}") > width:
        kept = kept[1:]
    return kept if kept == whole else f"...{kept}"


def fitted(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, or its beginning and end where it is too wide; for names of classes."""
    whole = shown = plain(text)
    kept = len(whole)
    while kept and font.getlength(shown) > width:
        kept -= 1
        shown = f"{whole[: (kept + 1) // 2]}...{whole[len(whole) - kept // 2 :]}"
    return shown
