"""Recording of the files that a stage opens and the parameters that it reads."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from pipeline.config.base import Section, Sections
from pipeline.config.params import Params

_noted: set[Path] | None = None  # an audit hook cannot be removed; None switches it off


def _note_opened(event: str, arguments: tuple[Any, ...]) -> None:
    if _noted is None or event != "open" or not isinstance(arguments[0], str | bytes):
        return
    path, mode, flags = arguments
    reads = flags & os.O_ACCMODE == os.O_RDONLY if mode is None else "r" in mode
    if reads:
        _noted.add(Path(os.path.realpath(os.fsdecode(path))))


sys.addaudithook(_note_opened)


@contextmanager
def opened_files() -> Iterator[set[Path]]:
    """The files that Python opens to read, links resolved."""
    global _noted
    _noted = found = set[Path]()
    try:
        yield found
    finally:
        _noted = None


def _sections(schema: type[BaseModel], place: str = "") -> Iterator[tuple[type[BaseModel], str]]:
    """Each section's class and the name that dvc.yaml has for it; no class serves twice."""
    yield schema, place
    for name, field in schema.model_fields.items():
        inner = str(field.annotation)
        for section in Section.__subclasses__():
            if section is field.annotation or f".{section.__name__}" in inner:
                yield from _sections(section, f"{place}.{name}".removeprefix("."))


PLACES = dict(_sections(Params))


def _watched_as(section: Section, name: str) -> list[str]:
    """The parameter's name in dvc.yaml, of two parts at most; none for a section by itself."""
    if isinstance(section, Sections) and name != "seed":
        return []
    parts = f"{PLACES.get(type(section), '')}.{name}".removeprefix(".").split(".")
    return [".".join(parts[:2])]


@contextmanager
def read_parameters() -> Iterator[set[str]]:
    """The parameters that code reads once params.yaml was checked, as ``section.name``."""
    found, checking = set[str](), [False]
    plain, dump, check = (
        Section.__getattribute__,
        Section.model_dump,
        Sections.model_validate.__func__,
    )

    def note(section: Section, name: str) -> Any:
        if name in type(section).model_fields and not checking[0]:
            found.update(_watched_as(section, name))
        return plain(section, name)

    def note_all(section: Section, **options: Any) -> dict[str, Any]:
        content = dump(section, **options)
        for name, value in content.items():
            if isinstance(section, Sections) and isinstance(value, dict):
                found.update(f"{name}.{key}" for key in value)
            else:
                found.update(_watched_as(section, name))
        return content

    def checked(*arguments: Any, **options: Any) -> Sections:
        checking[0] = True
        try:
            return check(*arguments, **options)
        finally:
            checking[0] = False

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Section, "__getattribute__", note)
        patch.setattr(Section, "model_dump", note_all)
        patch.setattr(Sections, "model_validate", classmethod(checked))
        yield found
