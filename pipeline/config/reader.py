"""Safe reading of a parameter file: YAML to sections, before anything is checked."""

from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline.system.text import short_repr


def read_sections(path: Path) -> dict[Any, Any]:
    """Read a parameter file.

    YAML 1.2, as DVC reads it (``5e-4`` is a number), and safe: no tags, no objects.

    Raises:
        ValueError: the file is missing, is no YAML, or has no sections.
    """
    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise ValueError(f"{path}: {found}; copy one of recipes/*.yaml to params.yaml")
    try:
        content = YAML(typ="safe", pure=True).load(path)
    except Exception as error:  # ruamel.yaml lets IndexError, KeyError and others through
        place = getattr(error, "problem_mark", None)
        line = f" in line {place.line + 1}" if place else ""
        found = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ValueError(
            f"{path.name}: not readable as YAML{line} ({found}); correct its syntax"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path.name}: must hold sections such as 'train:', got {short_repr(content)}"
        )
    return content
