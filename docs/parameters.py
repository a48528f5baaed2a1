"""Generator of docs/parameters.md: name, value here, allowed values, meaning, stages that read it.

    python -m docs.parameters            write it
    python -m docs.parameters --check    fail if it is not up to date

Allowed values come from the schema in `pipeline.config`, meanings from the comments of params.yaml
(of a section that is empty there, from recipes/demo-best.yaml), readers from dvc.yaml.
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
RECIPES = sorted((ROOT / "recipes").glob("*.yaml"))
MEANINGS = ("params", "demo-best")  # the second for sections that the first leaves empty
HEAD = """# Parameters

<!-- Written by `python -m docs.parameters`; change pipeline/config/, params.yaml or recipes/. -->

`params.yaml` as committed is the embedded demo. A misspelt key, a value out of bounds or a missing
line is refused in one sentence before any work starts. Sizes are `[height, width]` in pixels;
"paper" is Kim et al., AAAI 2024. DVC runs a stage again when a parameter that it reads has changed.

```sh
dvc exp run -S carb.tau=0.5              # one value, for one run
cp recipes/folder.yaml params.yaml       # another data set: all values
```
"""
LIMITS = {"minimum": "at least", "exclusiveMinimum": "above", "maximum": "at most"}
LIMITS |= {"exclusiveMaximum": "below"}
TYPES = {"integer": "whole number", "number": "number", "string": "text", "null": "empty"}
TYPES |= {"boolean": "true or false", "object": "names and values"}
app = typer.Typer(add_completion=False)


class Parameter(NamedTuple):
    """One line of a parameter file; ``allowed`` is empty for a section."""

    name: str
    allowed: str
    meaning: str


def allowed(kind: dict[str, Any]) -> str:
    """What a JSON schema allows, in words."""
    if "anyOf" in kind:
        return " or ".join(dict.fromkeys(map(allowed, kind["anyOf"])))
    if "enum" in kind:
        return ", ".join(f"`{one}`" for one in kind["enum"])
    if kind["type"] == "array":
        items = kind.get("prefixItems") or [kind["items"]]
        count = f"{len(items)} values" if "prefixItems" in kind else "list"
        return f"{count}, each {allowed(items[0])}"
    bounds = [
        f"{word} {kind[name]:g}" for name, word in LIMITS.items() if kind.get(name, 2e9) < 2e9
    ]
    return " ".join([TYPES[kind["type"]], " and ".join(bounds)]).strip()


def comment_of(mapping: Any, key: str) -> str:
    """The comment behind a key of a round-trip YAML, its lines joined; empty if there is none."""
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


def parameters(files: Sequence[Any]) -> Iterator[Parameter]:
    """All parameters in the schema's order, each section before what is in it.

    Args:
        files: those with comments, read for a round trip.
    """
    root = Params.model_json_schema()

    def below(schema: dict[str, Any], section: str) -> Iterator[Parameter]:
        for key, field in schema["properties"].items():
            name = f"{section}.{key}".removeprefix(".")
            options = field.get("anyOf", [field])
            inner = [root["$defs"][one["$ref"][8:]] for one in options if "$ref" in one]
            if "enum" in options[0]:  # a section in the place of a word is one parameter
                words = [allowed(options[0]), *("/".join(one["properties"]) for one in inner)]
                yield Parameter(name, " or ".join(words), meaning(files, section, key))
                continue
            named = field.get("additionalProperties")
            if isinstance(named, dict) and "$ref" in named:
                inner = [root["$defs"][named["$ref"][8:]]]
            yield Parameter(name, "" if inner else allowed(field), meaning(files, section, key))
            for one in inner:
                yield from below(one, f"{name}.<level>" if named else name)

    yield from below(root, "")


def value_of(content: Any, row: Parameter) -> str:
    """A parameter's value as a file has it; those of several levels; empty for a section."""
    section, _, key = row.name.rpartition(".")
    values = [_text(one[key]) for one in sections(content, section)] if row.allowed else []
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
    """The heading, the schema's docstring and the table of one section, which is the first row."""
    first, *inner = rows
    about: list[str] = []
    if inner:
        schema: Any = Params.model_fields[first.name].annotation
        about = [" ".join((schema.__doc__ or "").split()), ""]
        about += [f"Note: {first.meaning}.", ""] if first.meaning else []
    lines = [f"## {first.name}", "", *about]
    lines += ["| parameter | here | allowed | meaning | read by |", "|---|---|---|---|---|"]
    for row in inner or rows:
        name = row.name if row.allowed else f"**{row.name}**"
        value = _code(value_of(here, row))
        lines.append(_cells(name, value, row.allowed, row.meaning, readers(row.name, stages)))
    return [*lines, ""]


def recipe_table(rows: Sequence[Parameter], files: dict[str, Any]) -> list[str]:
    """Values of the recipes that differ from params.yaml."""
    here, *recipes = files.values()
    lines = [
        "## Recipes",
        "",
        "Values that differ from `params.yaml`; an empty cell: the same.",
        "",
    ]
    lines += [_cells("parameter", "here", *list(files)[1:]), "|" + "---|" * (1 + len(files))]
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
    rows = list(parameters([files[name] for name in MEANINGS]))
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
