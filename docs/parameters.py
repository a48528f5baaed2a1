"""Generator of docs/parameters.md: default, allowed values, meaning and readers of each parameter.

    python -m docs.parameters            write it
    python -m docs.parameters --check    fail if it is stale

Allowed values come from the schema in `pipeline.config`, meanings from the comments in params.yaml,
readers from dvc.yaml.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from ruamel.yaml import YAML

from pipeline.config.params import Params
from pipeline.system.command import command

ROOT = Path(__file__).parent.parent
PAGE, PARAMS = ROOT / "docs/parameters.md", ROOT / "params.yaml"
HEAD = """# Parameters

<!-- Written by `python -m docs.parameters`; change pipeline/config/ or params.yaml instead. -->

`params.yaml` as committed is the embedded demo. `prepare` checks the whole file before any work
starts. Sizes are `[height, width]` in pixels; "paper" is Kim et al., AAAI 2024. A stage runs again
when a parameter that it reads has changed; `report` (reads all) and `inputs` (always runs) are not
listed.

```sh
dvc exp run -S carb.tau=0.5              # one value, for one run
cp recipes/folder.yaml params.yaml       # another data set: all values
dvc params diff                          # what the recipe changed
```

Of `recipes/`, `demo-paper`, `cityscapes`, `camvid-paper` and `wilddash2` have the paper's values,
`camvid` those for two CPU cores, `camvid-best` and `cityscapes-best` the improved ones of the demo;
`folder` is for your own photos.
"""
LIMITS = {"minimum": "≥", "exclusiveMinimum": ">", "maximum": "≤", "exclusiveMaximum": "<"}
LARGEST = 2**15  # an upper bound from here on is left out: nobody meets it
TYPES = {"integer": "integer", "number": "number", "string": "text", "null": "empty"}
TYPES |= {"boolean": "true, false", "object": "mapping"}
UNLISTED = ("inputs", "report")
app = typer.Typer(add_completion=False)


class Parameter(NamedTuple):
    """A line of a parameter file; ``allowed`` is empty for a section."""

    name: str
    allowed: str
    meaning: str


def allowed(kind: dict[str, Any]) -> str:
    """The values that a JSON schema allows, in words."""
    if "anyOf" in kind:
        return " or ".join(dict.fromkeys(map(allowed, kind["anyOf"])))
    if "enum" in kind:
        return ", ".join(f"`{one}`" for one in kind["enum"])
    if kind["type"] == "array":
        items = kind.get("prefixItems") or [kind["items"]]
        count = f"{len(items)} x" if "prefixItems" in kind else "list of"
        return f"{count} {allowed(items[0])}"
    bounds = [
        f"{sign}{kind[name]:g}"
        for name, sign in LIMITS.items()
        if kind.get(name, LARGEST) < LARGEST
    ]
    return " ".join([TYPES[kind["type"]], ", ".join(bounds)]).strip()


def comment_of(mapping: Any, key: str) -> str:
    """The comment after a key of a round-trip YAML, lines joined; empty if there is none."""
    beside = mapping.ca.items.get(key) or []
    within = getattr(getattr(mapping[key], "ca", None), "comment", None) or []
    tokens = [token for token in (*beside, *within) if hasattr(token, "value")]
    text = tokens[0].value.split("\n\n")[0] if tokens else ""  # then comes the next section's
    return " ".join(line.strip().removeprefix("#").strip() for line in text.splitlines()).strip()


def sections(content: Any, name: str) -> list[Any]:
    """The section with that dotted name, if the file fills it; ``<level>`` means every level."""
    found = [content]
    for part in filter(None, name.split(".")):
        below = [list(one.values()) if part == "<level>" else [one[part]] for one in found]
        found = [one for some in below for one in some if one]
    return found


def meaning(content: Any, section: str, key: str) -> str:
    """The comments after a key, without repetition."""
    said = [comment_of(one, key) for one in sections(content, section)]
    return "; ".join(dict.fromkeys(filter(None, said)))


def parameters(content: Any) -> Iterator[Parameter]:
    """All parameters in the schema's order, each section before its parameters.

    Args:
        content: a parameter file with comments, loaded as round-trip YAML.
    """
    root = Params.model_json_schema()

    def below(schema: dict[str, Any], section: str) -> Iterator[Parameter]:
        for key, field in schema["properties"].items():
            name = f"{section}.{key}".removeprefix(".")
            options = field.get("anyOf", [field])
            inner = [root["$defs"][one["$ref"][8:]] for one in options if "$ref" in one]
            if "enum" in options[0]:  # a word or a section: one parameter
                words = [allowed(options[0]), *("/".join(one["properties"]) for one in inner)]
                yield Parameter(name, " or ".join(words), meaning(content, section, key))
                continue
            named = field.get("additionalProperties")
            if isinstance(named, dict) and "$ref" in named:
                inner = [root["$defs"][named["$ref"][8:]]]
            yield Parameter(name, "" if inner else allowed(field), meaning(content, section, key))
            for one in inner:
                yield from below(one, f"{name}.<level>" if named else name)

    yield from below(root, "")


def value_of(content: Any, row: Parameter) -> str:
    """A parameter's value in a file (of all levels); empty for a section."""
    section, _, key = row.name.rpartition(".")
    values = [_text(one[key]) for one in sections(content, section)] if row.allowed else []
    return "; ".join(dict.fromkeys(values))


def _text(value: Any) -> str:
    if isinstance(value, list):
        return f"[{', '.join(map(_text, value))}]"
    if hasattr(value, "items"):
        return ", ".join(f"{key}: {_text(item)}" for key, item in value.items()) or "{}"
    return {"None": "empty", "True": "true", "False": "false"}.get(str(value), str(value))


def readers(name: str, stages: dict[str, Any]) -> list[str]:
    """The stages that run again when a parameter changes."""
    plain = name.split(".<")[0]
    return [
        stage
        for stage, content in stages.items()
        if stage not in UNLISTED
        for entry in content.get("params", [])
        if f"{plain}.".startswith(f"{entry}.")
    ]


def read_by(rows: Sequence[Parameter], stages: dict[str, Any]) -> str:
    """A sentence on the stages that read all parameters of a section, and those that read some."""
    found = {row.name: readers(row.name, stages) for row in rows}
    some = {stage: None for names in found.values() for stage in names}  # in the order of dvc.yaml
    every = [stage for stage in some if all(stage in names for names in found.values())]
    parts = [", ".join(f"`{stage}`" for stage in every)]
    for stage in some:
        if stage not in every:
            names = [f"`{name.split('.')[-1]}`" for name in found if stage in found[name]]
            parts.append(f"{', '.join(names)} also by `{stage}`")
    return f"Read by {'; '.join(parts)}."


def _cells(*texts: str) -> str:
    return "| " + " | ".join(text.replace("|", "\\|").replace("<", "&lt;") for text in texts) + " |"


def _code(text: str) -> str:
    return f"`{text}`" if text and text != "empty" else text


def section_table(rows: Sequence[Parameter], values: Any, stages: Any) -> list[str]:
    """Heading, the schema's docstring and table of one section; the first row is the section."""
    first, *inner = rows
    shown = inner or rows
    notes = []
    if inner:
        schema: Any = Params.model_fields[first.name].annotation
        notes = [" ".join((schema.__doc__ or "").split())]
        notes += [f"{first.meaning[0].upper()}{first.meaning[1:]}."] if first.meaning else []
    notes.append(read_by([row for row in shown if "<" not in row.name], stages))
    lines = [f"## {first.name}", "", " ".join(notes), ""]
    lines += [_cells("parameter", "default", "allowed", "meaning"), "|---|---|---|---|"]
    for row in shown:
        name = row.name if row.allowed else f"**{row.name}**"
        lines.append(_cells(name, _code(value_of(values, row)), row.allowed, row.meaning))
    return [*lines, ""]


def page() -> str:
    """The whole page, as Markdown."""
    content = YAML().load(PARAMS)
    stages = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
    rows = list(parameters(content))
    lines = [HEAD]
    for section in Params.model_fields:
        own = [row for row in rows if row.name.split(".")[0] == section]
        lines += section_table(own, content, stages)
    return "\n".join(lines)


@app.command()
@command
def main(
    check: Annotated[bool, typer.Option("--check", help="Only compare; 2 if stale.")] = False,
) -> None:
    """Write docs/parameters.md.

    A test compares:

        python -m docs.parameters --check
    """
    if not check:
        PAGE.write_text(page(), "utf-8")
    elif not PAGE.is_file() or PAGE.read_text("utf-8") != page():
        raise ValueError("docs/parameters.md is stale; run `python -m docs.parameters`")


if __name__ == "__main__":
    app()
