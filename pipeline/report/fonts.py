"""Fonts of panels and charts: matplotlib's DejaVu Sans, or the file of ``pictures.font``.

One font per process, as with matplotlib's own settings. matplotlib is imported late, for speed.
"""

import logging
import re
import unicodedata
from collections.abc import Iterable
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from PIL import ImageFont

from pipeline.system.text import error_text

log = logging.getLogger("carb")
PARAMETER = "params.yaml: pictures.font"
BOX = "\u25a1"
NAMED = 20  # letters in a message
_chosen: list[Path] = []  # the font of this process; empty: DejaVu Sans


def use_font(path: str | None, texts: Iterable[str], *, setting: str = PARAMETER) -> None:
    """Set the font of panels and charts; log the letters that it lacks.

    Args:
        path: a .ttf, .otf or .ttc file; None: DejaVu Sans.
        texts: names of classes and images.
        setting: the parameter or option that names the font, for messages.

    Raises:
        ValueError: the file is missing or not a font.
    """
    _chosen[:] = []
    if path is not None:
        _chosen.append(_readable(Path(path), setting))
    visible = {letter for text in texts for letter in text if _is_visible(letter)}
    if lacking := sorted(_lacking(visible)):
        log.info(  # not a warning: only rank zero logs it
            "%s: %d letters of names of classes or photos are missing in %s and drawn as boxes: "
            "%s%s; name the file of a font that has them",
            *(setting, len(lacking), path or "DejaVu Sans", " ".join(lacking[:NAMED])),
            ", ..." if len(lacking) > NAMED else "",
        )


def _readable(path: Path, setting: str) -> Path:
    try:
        if not path.is_file():
            raise ValueError("a folder" if path.is_dir() else "no such file")
        letters(path)
        ImageFont.truetype(path, 16).getmask("a")
    except Exception as error:  # FreeType and matplotlib raise types of their own
        problem = error_text(error)
        raise ValueError(
            f"{setting}: {path}: not readable as a font ({problem}); name a .ttf, .otf or .ttc file"
        ) from None
    return path


def _is_visible(letter: str) -> bool:
    """Whether a letter is visible: no space, control character, joiner or lone surrogate."""
    return unicodedata.category(letter)[0] not in "ZC" and not "\ufe00" <= letter <= "\ufe0f"


def font_file() -> Path:
    """The file of the font in use."""
    if _chosen:
        return _chosen[0]
    found = find_spec("matplotlib")  # its import takes half a second
    assert found is not None
    assert found.origin is not None
    path = Path(found.origin).parent / "mpl-data/fonts/ttf/DejaVuSans.ttf"
    if path.is_file():
        return path
    import matplotlib  # packages of Linux distributions have it elsewhere

    return Path(matplotlib.get_data_path()) / "fonts/ttf/DejaVuSans.ttf"


def text_font(size: int) -> ImageFont.FreeTypeFont:
    """The font in use, for Pillow."""
    return _loaded(font_file(), size)


@lru_cache(maxsize=32)
def _loaded(path: Path, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


@lru_cache(maxsize=4)
def letters(path: Path) -> frozenset[str]:
    """The letters of a font; for a collection (.ttc) those of its first font."""
    from matplotlib.ft2font import FT2Font

    return frozenset(map(chr, FT2Font(str(path)).get_charmap()))


def _lacking(text: Iterable[str]) -> set[str]:
    """The characters that the font in use lacks; DejaVu Sans has the visible ones of ASCII."""
    others = {letter for letter in text if _chosen or not letter.isascii()}
    return others - letters(font_file()) if others else others


def chart_settings() -> dict[Any, Any]:
    """matplotlib settings: the font in use, and ``$`` as a plain character."""
    settings: dict[Any, Any] = {"text.parse_math": False}
    if _chosen:
        settings["font.family"] = _family(_chosen[0])
    return settings


@lru_cache(maxsize=4)
def _family(path: Path) -> str:
    """A unique family name for the file, so that no installed font of that name is used."""
    from matplotlib.font_manager import FontEntry, fontManager

    name = f"carb {path.resolve()}"
    for weight in (400, 700):  # also used for bold text
        fontManager.ttflist.append(FontEntry(str(path.resolve()), name=name, weight=weight))
    return name


def one_line(text: str) -> str:
    """The text as one line, with a box for each letter that the font lacks."""
    text = re.sub(r"[\x00-\x1f\x7f\u2028\u2029\ud800-\udfff]", " ", text)
    lacking = _lacking(text)
    box = "?" if lacking and _lacking(BOX) else BOX
    return "".join(c if c not in lacking else box if _is_visible(c) else "" for c in text)


def shorten_start(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, cut at its start to fit the width: keys of images differ at their ends."""
    whole = kept = one_line(text)
    while kept and font.getlength(kept if kept == whole else f"...{kept}") > width:
        kept = kept[1:]
    return kept if kept == whole else f"...{kept}"


def shorten_middle(text: str, font: ImageFont.FreeTypeFont, width: int) -> str:
    """The text, cut in its middle to fit the width; for class names."""
    whole = shown = one_line(text)
    kept = len(whole)
    while kept and font.getlength(shown) > width:
        kept -= 1
        shown = f"{whole[: (kept + 1) // 2]}...{whole[len(whole) - kept // 2 :]}"
    return shown
