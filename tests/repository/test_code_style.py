"""Code style: short files and functions, one word per concept, no unused parameter or option."""

import ast
import re
import statistics
import tomllib
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

from ruamel.yaml import YAML

from pipeline.config import load_params
from tests.helpers import ROOT

CODE = sorted(
    path for name in ("pipeline", "stages", "bench", "demo") for path in (ROOT / name).rglob("*.py")
)
TESTS = sorted((ROOT / "tests").rglob("*.py"))
MOST_LINES, MOST_OF_A_FUNCTION, MEDIAN = 350, 60, 15
# One word per concept: synonyms of the words that this project uses. `pred` is allowed, because
# external checks pass it to `metrics.confusion`.
NEVER = """
seg_logit seg_logits score_map fixed_mask gt seg target_mask img_label img_labels xyxy bbox
bboxes sz n_iter n_steps n_classes void_index ignore_label local_patch partial_view num_iters
max_iters
"""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(path: Path) -> Iterator[tuple[str, int]]:
    """Name and number of lines of each function in a file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, Function):
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1


def identifiers(path: Path) -> Iterator[str]:
    """Names that a file gives to variables, arguments, functions and fields."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, Function | ast.ClassDef):
            yield node.name
        elif isinstance(node, ast.arg):
            yield node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id


def test_files_and_functions_are_short() -> None:
    long = []
    for path in (*CODE, *TESTS):
        lines = path.read_text("utf-8").count("\n")
        sizes = {name: size for name, size in functions(path) if size > MOST_OF_A_FUNCTION}
        long += [(path, lines)] if lines > MOST_LINES else []
        long += [(path, name, size) for name, size in sizes.items()]
    assert not long, "split them"


def test_most_functions_are_short() -> None:
    sizes = [size for path in CODE for _, size in functions(path)]
    assert statistics.median(sizes) < MEDIAN


def test_each_concept_has_one_word() -> None:
    found = {path: set(NEVER.split()) & set(identifiers(path)) for path in CODE}
    assert not {path: names for path, names in found.items() if names}


def test_each_parameter_is_read_by_the_code() -> None:
    read = {
        node.attr
        for path in CODE
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.Attribute)
    }
    for section, values in load_params(ROOT / "params.yaml").model_dump().items():
        for name in values if isinstance(values, dict) else [section]:
            assert name in read, f"params.yaml: {section}.{name} is read nowhere"


def options(path: Path) -> Iterator[str]:
    """The options of a command line as a person types them, but without paths."""
    for function in ast.walk(ast.parse(path.read_text("utf-8"))):
        for arg in function.args.args if isinstance(function, Function) else ():
            kind = ast.unparse(arg.annotation) if arg.annotation else ""
            if "typer.Option(" in kind and not kind.startswith("Annotated[Path"):
                name = arg.arg.replace("_", "-")
                yield f"(--{name}|--no-{name})"


def test_each_option_is_used_or_documented() -> None:
    own = Path(__file__)
    users = chain(
        (path for path in TESTS if path != own),
        (ROOT / "bench").glob("*.py"),
        (ROOT / "docs").rglob("*.md"),
        [ROOT / "README.md", ROOT / "dvc.yaml"],
    )
    text = "\n".join(path.read_text("utf-8") for path in users)
    known = {name for path in CODE for name in options(path)}
    assert known
    unused = [name for name in sorted(known) if not re.search(rf"{name}(?![\w-])", text)]
    assert not unused, (
        f"unused options: {', '.join(unused)}; remove them, or test and document them"
    )


def test_citation_is_of_this_version_and_licence() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    cited = YAML(typ="safe").load(ROOT / "CITATION.cff")
    assert (cited["version"], cited["license"]) == (project["version"], project["license"])
    assert "2312.13646" in cited["preferred-citation"]["identifiers"][0]["value"]
