"""Strict reading of params.yaml: base classes and types of its sections, one-sentence errors.

A stage reads its own sections only, so that a new parameter of `eval` does not retrain: it lists
them as fields of a `Sections` class and calls `load_sections`.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeVar

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from pipeline.system.text import short_repr


def as_tuple(value: object) -> object:
    """Convert a list to the tuple that a strict schema requires; YAML has no tuples."""
    return tuple(value) if isinstance(value, list) else value


Fraction = Annotated[float, Field(ge=0, le=1)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Count = Annotated[int, Field(gt=0, lt=2**31)]  # 32-bit integers of C libraries
Seed = Annotated[int, Field(ge=0, lt=2**31)]
Side = Annotated[int, Field(gt=0, le=2**15)]
Zoom = Annotated[float, Field(ge=0.05, le=16)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1)]
Size = Annotated[tuple[Side, Side], BeforeValidator(as_tuple)]  # (height, width) in pixels
Span = Annotated[tuple[Zoom, Zoom], BeforeValidator(as_tuple)]  # [smallest, largest]
Precision = Literal["auto", "bf16-mixed", "32-true"]

RENAMED = {  # keys of earlier versions
    "clip.words": "clip.class_prompts",
    "carb.floor": "carb.min_weight",
    "train.dice": "train.dice_weight",
    "warm_start": "distillation",
}
REMOVED = {"dataset.label_noise": "`python -m bench.label_noise` writes noisy labels"}
_HINTS = {
    "bool_type": "; write true or false",
    "int_type": "; write a whole number without quotes",
    "float_type": "; write a number without quotes",
}


class Section(BaseModel):
    """A section of params.yaml: read-only, strictly typed, unknown keys are refused.

    ``"600"`` is not a number, ``"no"`` and 0 are not false; an integer is accepted as a float.
    A validator's message begins with the key's name and a colon.
    """

    model_config = ConfigDict(frozen=True, strict=True)
    ignores_other_keys: ClassVar[bool] = False

    @model_validator(mode="before")
    @classmethod
    def _keys_are_known(cls, content: object) -> object:
        if isinstance(content, cls):
            return content
        if not isinstance(content, dict):
            found = short_repr(content)
            raise ValueError(f": must be a section of 'key: value' lines, got {found}")
        for key in () if cls.ignores_other_keys else content:
            if key not in cls.model_fields:
                close = difflib.get_close_matches(str(key), cls.model_fields, n=1)
                hint = f"did you mean '{close[0]}'?" if close else "remove it"
                raise ValueError(f"{key}: no such parameter; {hint}")
        return content


class Sections(Section):
    """The sections of params.yaml that one stage reads; others are ignored."""

    ignores_other_keys: ClassVar[bool] = True


S = TypeVar("S", bound=Sections)


def load_sections(path: Path, schema: type[S]) -> S:
    """Read and check the sections of a parameter file that are fields of ``schema``.

    Raises:
        ValueError: the file is missing, is not YAML, or violates the schema.
    """
    content = _read_yaml(path)
    _check_renamed(content, path.name)
    try:
        return schema.model_validate(content)
    except ValidationError as error:
        raise ValueError(f"{path.name}: {_sentence(error, content)}") from None


def _read_yaml(path: Path) -> dict[Any, Any]:
    """Read YAML 1.2, like DVC (``5e-4`` is a number), and without tags that create objects."""
    from ruamel.yaml import YAML

    if not path.is_file():
        found = "a folder" if path.is_dir() else "no such file"
        raise ValueError(f"{path}: {found}; copy one of recipes/*.yaml to params.yaml")
    try:
        content = YAML(typ="safe", pure=True).load(path)
    except Exception as error:  # ruamel.yaml also raises IndexError, KeyError and others
        place = getattr(error, "problem_mark", None)
        line = f" in line {place.line + 1}" if place else ""
        found = " ".join(str(getattr(error, "problem", None) or error).split())
        raise ValueError(
            f"{path.name}: not readable as YAML{line} ({found}); correct its syntax"
        ) from None
    if not isinstance(content, dict):
        raise ValueError(
            f"{path.name}: must contain sections such as 'train:', got {short_repr(content)}"
        )
    return content


def _check_renamed(content: dict[Any, Any], file: str) -> None:
    """Refuse keys of earlier versions, with their new name."""
    for old in (*RENAMED, *REMOVED):
        *sections, key = old.split(".")
        place: Any = content
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if isinstance(place, dict) and key in place:
            if old in RENAMED:
                raise ValueError(f"{file}: {old} was renamed to {RENAMED[old]}; rename it")
            raise ValueError(f"{file}: {old} was removed ({REMOVED[old]}); delete it")


def _sentence(error: ValidationError, content: object) -> str:
    """The first error that pydantic found, with the parameter's dotted name.

    Names of union members in pydantic's path are left out, because they are not in the file.
    """
    faults = error.errors()
    fault = next(  # for a section where a word is allowed, report the error inside the section
        (one for one in faults if (one["type"], type(one["input"])) != ("literal_error", dict)),
        faults[0],
    )
    name, place = "", content
    missing = fault["loc"][-1:] if fault["type"] == "missing" else ()
    for part in fault["loc"]:
        if isinstance(place, dict) and (part in place or part in missing):
            name, place = f"{name}.{part}".removeprefix("."), place.get(part)
        elif isinstance(place, list) and isinstance(part, int):
            name, place = f"{name}[{part}]", place[part] if part < len(place) else None
    problem = fault["msg"].replace("Tuple", "List").replace("tuple", "list")
    if fault["type"] == "value_error":  # raised by our own validators
        problem = problem.removeprefix("Value error, ")
        return f"{name}{problem}" if problem.startswith(":") or not name else f"{name}.{problem}"
    if missing:
        return f"{name}: {problem}; add it (the committed params.yaml shows its meaning)"
    found = list(fault["input"]) if isinstance(fault["input"], tuple) else fault["input"]
    wants_hint = isinstance(found, str) or fault["type"] == "bool_type"
    hint = _HINTS.get(fault["type"], "") if wants_hint else ""
    return f"{name}: {problem}, got {short_repr(found)}{hint}"
