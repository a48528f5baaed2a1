"""Write docs/parameters.md: what each parameter must be, its value here, and what it means.

    python -m docs.parameters            write it
    python -m docs.parameters --check    fail if it is not up to date

Types and bounds come from `pipeline.config.params`, meanings from the comments of params.yaml (of a
section that is empty there, from recipes/demo-best.yaml), readers from dvc.yaml.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from ruamel.yaml import YAML

from pipeline.config.params import Params
from pipeline.system.command import command

ROOT = Path(__file__).parent.parent
PAGE, PARAMS = ROOT / "docs/parameters.md", ROOT / "params.yaml"
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
MEANINGS = ("params", "demo-best")  # the second for sections that the first leaves empty
HEAD = """# Parameters

<!-- Written by `python -m docs.parameters`; change pipeline/config/, params.yaml or recipes/. -->

Every value of the science stands in `params.yaml`; its value there is that of the embedded demo. A
typing error, a value out of bounds or a missing line is refused in one sentence before any work
starts. Sizes are `[height, width]` in pixels; "paper" is Kim et al., AAAI 2024. DVC runs a stage
again when a parameter that it reads has changed.

```sh
dvc exp run -S carb.tau=0.5              # one value, for one run
cp recipes/folder.yaml params.yaml       # another data set: all values
```
"""
WORDS = {  # of the error messages, shorter
    f" and below {2**31}": "",
    "a list of 2 values, each a whole number that is above 0 and at most": "[height, width], up to",
    "a whole number that is": "whole number",
    "null or": "empty or",
    "text that is not empty": "text",
    "a list of 2 values, each": "2 values, each",
    "'": "`",
}
app = typer.Typer(add_completion=False)


@dataclass(frozen=True)
class Parameter:
    """One line of a parameter file.

    Attributes:
        name: dotted, ``<level>`` where a section has names of its own.
        must: what the schema asks for, in words; empty for a section.
        meaning: the comments beside it, without repetition.
    """

    name: str
    must: str
    meaning: str


def section_in(kind: Any) -> type[BaseModel] | None:
    """The section that a type annotation holds: itself, or one that may be empty or named.

    None where a word may stand in its place: that is one parameter.
    """
    if any(get_origin(one) is Literal for one in get_args(kind)):
        return None
    for one in (kind, *get_args(kind)):
        if isinstance(one, type) and issubclass(one, BaseModel):
            return one
    return None


def comment_of(mapping: Any, key: str) -> str:
    """What stands behind a key of a round-trip YAML, its lines joined; empty if nothing does."""
    beside = mapping.ca.items.get(key) or []
    within = getattr(getattr(mapping[key], "ca", None), "comment", None) or []
    tokens = [token for token in (*beside, *within) if hasattr(token, "value")]
    text = tokens[0].value.split("\n\n")[0] if tokens else ""  # then comes the next section's
    return " ".join(line.strip().removeprefix("#").strip() for line in text.splitlines()).strip()


def sections(content: Any, name: str) -> list[Any]:
    """The section of that dotted name, where the file fills it; for ``<level>`` all there are."""
    found = [content]
    for part in filter(None, name.split(".")):
        below = [list(one.values()) if part == "<level>" else [one[part]] for one in found]
        found = [one for some in below for one in some if one]
    return found


def meaning(files: Sequence[Any], section: str, key: str) -> str:
    """The comments beside a key, in the first file that has any, without repetition."""
    for content in files:
        said = [comment_of(one, key) for one in sections(content, section)]
        if any(said):
            return "; ".join(dict.fromkeys(filter(None, said)))
    return ""


def parameters(
    files: Sequence[Any], schema: type[BaseModel], section: str = ""
) -> Iterator[Parameter]:
    """The parameters of a section and of those within it, in the schema's order.

    Args:
        files: those with comments, read for a round trip.
        schema: of the section.
        section: its dotted name, empty for the whole file.
    """
    for key, field in schema.model_fields.items():
        name = f"{section}.{key}".removeprefix(".")
        yield Parameter(name, _must(field), meaning(files, section, key))
        inner = section_in(field.annotation)
        if inner:
            named = get_origin(field.annotation) is dict
            yield from parameters(files, inner, f"{name}.<level>" if named else name)


def _must(field: FieldInfo) -> str:
    if section_in(field.annotation):
        return ""
    if get_origin(field.annotation) is dict:
        return "names and values"
    words = described(field.annotation, tuple(field.metadata))
    for old, new in WORDS.items():
        words = words.replace(old, new)
    return words


def value_of(content: Any, row: Parameter) -> str:
    """A parameter's value as a file has it; those of several levels; empty for a section."""
    section, _, key = row.name.rpartition(".")
    values = [_text(one[key]) for one in sections(content, section)] if row.must else []
    return "; ".join(dict.fromkeys(values))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if hasattr(value, "items"):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) or "{}"
    return {"None": "empty", "True": "true", "False": "false"}.get(str(value), str(value))


def readers(name: str, stages: dict[str, Any]) -> str:
    """The stages whose parameters include one."""
    plain = name.split(".<")[0]
    return ", ".join(
        stage
        for stage, content in stages.items()
        for entry in content.get("params", [])
        if f"{plain}.".startswith(f"{entry}.")
    )


def _cells(*texts: str) -> str:
    return "| " + " | ".join(text.replace("|", "\\|").replace("<", "&lt;") for text in texts) + " |"


def _code(text: str) -> str:
    return f"`{text}`" if text and text != "empty" else text


def section_table(rows: Sequence[Parameter], here: Any, stages: Any) -> list[str]:
    """The heading, the schema's words and the table of one section, which is the first row."""
    first = rows[0]
    schema = section_in(Params.model_fields[first.name].annotation)
    about = [" ".join((schema.__doc__ or "").split()), ""] if schema else []
    note = [f"Note: {first.meaning}.", ""] if schema and first.meaning else []
    lines = [f"## {first.name}", "", *about, *note]
    lines += ["| parameter | here | must be | meaning | read by |", "|---|---|---|---|---|"]
    for row in rows[1:] if schema else rows:
        name = row.name if row.must else f"**{row.name}**"
        value = _code(value_of(here, row))
        lines.append(_cells(name, value, row.must, row.meaning, readers(row.name, stages)))
    return [*lines, ""]


def recipe_table(rows: Sequence[Parameter], files: dict[str, Any]) -> list[str]:
    """What the recipes set otherwise than params.yaml does."""
    here, *recipes = files.values()
    lines = [
        "## Recipes",
        "",
        "Where a recipe says something else than `params.yaml`; an empty cell is the same value.",
        "",
        _cells("parameter", "here", *list(files)[1:]),
        "|" + "---|" * (1 + len(files)),
    ]
    for row in rows:
        own = value_of(here, row)
        others = [value_of(recipe, row) for recipe in recipes]
        if any(other not in ("", own) for other in others):
            cells = [_code(other) if other != own else "" for other in others]
            lines.append(_cells(row.name, _code(own), *cells))
    return lines


def page() -> str:
    """The whole page, as Markdown."""
    reader = YAML()
    files = {path.stem: reader.load(path) for path in (PARAMS, *RECIPES)}
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    rows = list(parameters([files[name] for name in MEANINGS], Params))
    lines = [HEAD]
    for section in Params.model_fields:
        own = [row for row in rows if row.name.split(".")[0] == section]
        lines += section_table(own, files["params"], stages)
    return "\n".join([*lines, *recipe_table(rows, files)]) + "\n"


@app.command()
@command
def main(
    check: Annotated[bool, typer.Option("--check", help="Only compare; 2 if stale.")] = False,
) -> None:
    """Write docs/parameters.md.

    A test runs this one:

        python -m docs.parameters --check
    """
    if not check:
        PAGE.write_text(page(), "utf-8")
    elif not PAGE.is_file() or PAGE.read_text("utf-8") != page():
        raise ValueError("docs/parameters.md is stale; run `python -m docs.parameters`")


if __name__ == "__main__":
    app()
