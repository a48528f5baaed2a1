"""What pydantic finds wrong with a parameter file, as one sentence that names the parameter."""

import difflib
import re
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from pipeline.system.text import short_repr

RENAMED = {  # keys of earlier versions
    "clip.words": "clip.class_prompts",
    "carb.floor": "carb.min_weight",
    "train.dice": "train.dice_weight",
    "warm_start": "distillation",
}
REMOVED = {"dataset.label_noise": "`python -m bench.label_noise` writes noisy labels"}
_NO_TEXT = ("int_type", "float_type", "bool_type")
_PLAIN = re.compile(r"true|false|[-+]?[0-9.]+(e[-+]?[0-9]+)?", re.IGNORECASE)


def described(kind: Any, limits: tuple[Any, ...] = ()) -> str:
    """What a value of this type must be, in words.

    Args:
        kind: a type annotation of the schema.
        limits: pydantic's metadata beside it, such as bounds.
    """
    arguments = get_args(kind)
    if get_origin(kind) is Annotated:
        return described(arguments[0], arguments[1:])
    if get_origin(kind) is Literal:
        *first, last = (f"'{choice}'" for choice in arguments)
        return f"{', '.join(first)} or {last}" if first else last
    if get_origin(kind) is tuple:
        return f"a list of {len(arguments)} values, each {described(arguments[0])}"
    if type(None) in arguments:
        return f"null or {described(arguments[0], limits)}"
    if get_origin(kind) is UnionType or get_origin(kind) is Union:  # words, or a section
        return ", or ".join(map(_of_union, arguments))
    nouns = {bool: "true or false", str: "text", int: "a whole number", list: "a list"}
    noun = nouns.get(get_origin(kind) or kind)
    if noun is None and kind is not float:
        return "a section of 'key: value' lines"
    bounds = _bounds(limits)
    noun = f"{noun} that is {bounds}" if noun and bounds else noun or bounds or "a number"
    return f"{noun}, each value {described(arguments[0])}" if arguments else noun


def _of_union(kind: Any) -> str:
    """One of several types; a section by its keys."""
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return described(kind)
    fields = (f"{name}: {described(one.annotation)}" for name, one in kind.model_fields.items())
    return f"the lines {' and '.join(fields)}"


def _bounds(limits: tuple[Any, ...]) -> str:
    """Pydantic's limits in words; a field nested in a type carries them in its own ``metadata``."""
    flat = [item for limit in limits for item in getattr(limit, "metadata", [limit])]
    found = {
        name: getattr(item, name)
        for item in flat
        for name in ("gt", "ge", "lt", "le", "min_length")
        if hasattr(item, name)
    }
    if "ge" in found and "le" in found:
        return f"between {found['ge']} and {found['le']}"
    words = {"gt": "above {}", "ge": "at least {}", "lt": "below {}"}
    words |= {"le": "at most {}", "min_length": "not empty"}
    return " and ".join(words[name].format(value) for name, value in found.items())


def check_renamed(content: dict[Any, Any], file: str) -> None:
    """Refuse keys of earlier versions, with their new name.

    Raises:
        ValueError: names the first of them.
    """
    for old in (*RENAMED, *REMOVED):
        *sections, key = old.split(".")
        place: Any = content
        for section in sections:
            place = place.get(section) if isinstance(place, dict) else None
        if not isinstance(place, dict) or key not in place:
            continue
        new = RENAMED.get(old)
        what = f"was renamed to {new}; rename it" if new else f"was removed ({REMOVED[old]})"
        raise ValueError(f"{file}: {old} {what}" + ("" if new else "; delete it"))


def _unknown_key(section: type[BaseModel], key: str) -> str:
    close = difflib.get_close_matches(key, section.model_fields, n=1)
    return f"is no parameter; did you mean '{close[0]}'?" if close else "is no parameter; remove it"


def sentence(error: ValidationError, content: Any, schema: type[BaseModel]) -> str:
    """The first thing wrong, as a sentence: the parameter, what must hold, what was found.

    Args:
        error: what pydantic found.
        content: the file, as read.
        schema: what it was checked against.
    """
    faults = error.errors()  # a misspelt key is also a missing one: its own name comes first
    fault = min(faults, key=lambda one: one["type"] not in ("extra_forbidden", "invalid_key"))
    path = fault["loc"]
    if fault["type"] == "value_error":  # our own validators name the parameter themselves
        return ".".join([*map(str, path), fault["msg"].removeprefix("Value error, ")])
    kind: Any = schema
    limits: tuple[Any, ...] = ()
    value, name = content, ""
    for part in path[:-2] if path[-1] == "[key]" else path:
        section = kind if isinstance(kind, type) and issubclass(kind, BaseModel) else None
        if section is None and get_origin(kind) is not dict:
            break  # an item of a list: show the whole list
        name = f"{name}.{part}".removeprefix(".")
        if section is None:
            kind, limits = get_args(kind)[1], ()
        elif part not in section.model_fields:
            return f"{name} {_unknown_key(section, str(part))}"
        elif part not in value:
            return f"{name} is missing; add it (the committed params.yaml shows its meaning)"
        else:
            field = section.model_fields[str(part)]
            kind, limits = field.annotation, tuple(field.metadata)
        value = value.get(part)
    quoted = fault["type"] in _NO_TEXT and isinstance(fault["input"], str)
    hint = "; write it without quotes" if quoted and _PLAIN.fullmatch(fault["input"]) else ""
    if fault["type"] == "int_type" and isinstance(fault["input"], float) and value % 1 == 0:
        hint = f"; write {value:.0f}"
    return f"{name} must be {described(kind, limits)}, got {short_repr(value)}{hint}"
