"""What the documentation quotes and links to is there."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from docs.site import AT_ROOT, ROOT, line_of, named_links

PAGES = sorted((ROOT / "docs").glob("*.md"))
OF_DVC = "## DVC"  # the messages below are not ours


def _text(node: ast.AST) -> str | None:
    """A string of the source; what an f-string fills in becomes an ellipsis."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return re.sub(r"%[sd]", "...", node.value)  # of log lines
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) or "..." for part in node.values)
    return None


def strings_of_the_source() -> list[str]:
    paths = [path for name in ("pipeline", "stages") for path in (ROOT / name).rglob("*.py")]
    nodes = (node for path in paths for node in ast.walk(ast.parse(path.read_text("utf-8"))))
    return [text.replace("`", "'") for node in nodes if (text := _text(node))]


def quoted_messages() -> list[str]:
    ours = (ROOT / "docs/troubleshooting.md").read_text("utf-8").split(OF_DVC)[0]
    return re.findall(r"^\| `([^`]+)` \|", ours, re.MULTILINE)


def test_messages_of_troubleshooting_stand_in_the_source() -> None:
    source = strings_of_the_source()
    for message in quoted_messages():
        parts = [re.escape(part) for part in message.split("...") if part.strip(" ;,:")]
        assert parts, message
        pattern = re.compile(".*".join(parts), re.DOTALL)
        assert any(pattern.search(text) for text in source), f"no message says: {message}"
    assert len(quoted_messages()) > 20


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_definitions_that_a_page_links_to_are_there(page: Path) -> None:
    for name, link in named_links(page.read_text("utf-8")):
        file = (page.parent / link).resolve()
        assert line_of(file, name), f"{page.name}: {file.name} defines no {name}"


def test_method_names_what_implements_each_equation() -> None:
    names = {name for name, _ in named_links((ROOT / "docs/method.md").read_text("utf-8"))}
    assert {"split_by_consistency", "CarbLoss._balance", "CarbLoss.forward", "hard_mask"} <= names


def test_every_page_is_in_the_navigation_once() -> None:
    listed = re.findall(r"^ +- .*: ([\w-]+\.md)$", (ROOT / "mkdocs.yml").read_text(), re.MULTILINE)
    there = [*(page.name for page in PAGES), *AT_ROOT.values()]
    assert sorted(listed) == sorted(there), "mkdocs.yml: nav"


def test_line_of_finds_functions_methods_classes_and_constants(tmp_path: Path) -> None:
    file = tmp_path / "a.py"
    file.write_text("X = 1\nY: int = 2\n\n\nclass A:\n    def f(self): ...\n\n\ndef g(): ...\n")
    assert [line_of(file, name) for name in ("X", "Y", "A", "A.f", "g")] == [1, 2, 5, 6, 9]
    assert line_of(file, "f") is None
    assert line_of(file, "A.x") is None


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as CI does: a warning is an error."""
    pytest.importorskip("material", reason="needs the docs extra")
    out = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", out]
    quiet = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    run = subprocess.run(command, cwd=ROOT, env=quiet, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert run.stdout + run.stderr == ""
    return out


def test_site_is_whole_and_loads_nothing_from_elsewhere(site: Path) -> None:
    for page in site.rglob("*.html"):
        text = page.read_text("utf-8")
        assert not re.findall(r'(?:src|<link [^>]*href)="(?:https?:)?//[^"]+"', text), page
        assert not re.findall(r"@import|url\(https?:", text), page
    assert {page.stem for page in PAGES} <= {page.stem for page in site.glob("*.html")}


def test_site_shows_equations_and_leads_to_lines_of_code(site: Path) -> None:
    method = (site / "method.html").read_text("utf-8")
    assert method.count('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">') >= 8
    assert "arithmatex" not in method
    assert "$" not in re.sub(r"<(script|style).*?</\1>", "", method, flags=re.DOTALL)
    line = line_of(ROOT / "pipeline/carb.py", "CarbLoss._balance")
    assert f'href="source/pipeline/carb.py.html#__codelineno-0-{line}"' in method
    shown = (site / "source/pipeline/carb.py.html").read_text("utf-8")
    assert f'id="__codelineno-0-{line}"' in shown


def test_search_finds_words_of_pages_and_not_of_sources(site: Path) -> None:
    found = json.loads((site / "search/search_index.json").read_text("utf-8"))["docs"]
    assert any("warmup_steps" in entry["text"] for entry in found)
    assert not any(entry["location"].startswith("source/") for entry in found)
