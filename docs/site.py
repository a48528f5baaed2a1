"""MkDocs hooks that build the site: pages from files of the root, source pages, equations.

README.md, CONTRIBUTING.md and CHANGELOG.md become pages. A link to a source file leads to a page
that shows it: `[`name`](../pipeline/carb.py)` to the line that defines that function, class or
constant. Equations become MathML, which browsers render without scripts. The site loads nothing
from other servers.
"""

import ast
import html
import posixpath
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel
from mkdocs.structure.pages import Page

ROOT = Path(__file__).parent.parent
AT_ROOT = {"README.md": "index.md", "CONTRIBUTING.md": "contributing.md"}
AT_ROOT["CHANGELOG.md"] = "changelog.md"
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)(#[^)\s]*)?(?=\))")
NAMED = re.compile(r"\[`([\w.]+)`\]\(([^)\s]+\.py)\)")
EQUATION = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)
SHOWN = re.compile(r'<a href="([^"]*?source/([^"]+\.py)\.html)"><code>([\w.]+)</code></a>')
LINE = "__codelineno-0-"  # anchors of pymdownx.highlight in a page's first code block
LANGUAGES = {".py": "python", ".yaml": "yaml", ".toml": "toml", ".csv": "text", "": "sh"}


def line_of(path: Path, name: str) -> int | None:
    """The line where a file defines a function, method, class or constant, or None."""
    scope: list[ast.stmt] = ast.parse(path.read_text("utf-8")).body
    found: ast.stmt | None = None
    for part in name.split("."):
        found = next((node for node in scope if part in _names(node)), None)
        scope = found.body if isinstance(found, ast.ClassDef) else []
    return None if found is None else found.lineno


def _names(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return [target.id for target in targets if isinstance(target, ast.Name)]


def named_links(markdown: str) -> list[tuple[str, str]]:
    """Links to definitions in source files: name, and the file as written."""
    return NAMED.findall(markdown)


def _target(link: str, page: str) -> str:
    """The target of a link on ``page``, both relative to the repository's root."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(page), link))


def _in_site(target: str) -> str:
    """The page or file of the site that shows a file of the repository."""
    if target in AT_ROOT:
        return AT_ROOT[target]
    return target.removeprefix("docs/") if target.startswith("docs/") else f"source/{target}.md"


def _rewritten(markdown: str, origin: str, page: str) -> str:
    """Markdown of ``origin`` with its links rewritten for ``page`` of the site."""
    here = posixpath.dirname(page) or "."

    def lead(match: re.Match[str]) -> str:
        target = _target(match[1], origin)
        if not (ROOT / target).is_file():
            return match[0]  # MkDocs reports the broken link
        return posixpath.relpath(_in_site(target), here) + (match[2] or "")

    return LINK.sub(lead, markdown)


def _linked(markdown: str, origin: str) -> set[str]:
    return {_target(link, origin) for link, _ in LINK.findall(markdown)}


def _source_page(path: str) -> str:
    text = (ROOT / path).read_text("utf-8").rstrip()
    language = LANGUAGES.get(Path(path).suffix, "text")
    hidden = (
        "---\nsearch:\n  exclude: true\n---\n"  # else source code would dominate the search results
    )
    return f'{hidden}# {path}\n\n``````{language} linenums="1"\n{text}\n``````\n'


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the root's pages, and a page for each source file that a page links to."""
    wanted: set[str] = set()
    for origin, page in AT_ROOT.items():
        text = (ROOT / origin).read_text("utf-8")
        wanted |= _linked(text, origin)
        files.append(File.generated(config, page, content=text))
    for file in files.documentation_pages():
        if file.abs_src_path:
            wanted |= _linked(file.content_string, f"docs/{file.src_uri}")
    for path in sorted(wanted):
        if (ROOT / path).is_file() and not path.startswith("docs/") and path not in AT_ROOT:
            shown = File.generated(config, _in_site(path), content=_source_page(path))
            shown.inclusion = InclusionLevel.NOT_IN_NAV
            files.append(shown)
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Rewrite links to pages of the site."""
    uri = page.file.src_uri
    if uri.startswith("source/"):
        return markdown
    origin = next((root for root, made in AT_ROOT.items() if made == uri), f"docs/{uri}")
    return _rewritten(markdown, origin, uri)


def on_page_content(content: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Turn equations into MathML, and point links that name a definition to its line."""

    def draw(match: re.Match[str]) -> str:
        display = "block" if match[1] == "div" else "inline"
        return convert(html.unescape(match[2]), display=display)

    def point(match: re.Match[str]) -> str:
        line = line_of(ROOT / match[2], match[3])
        return match[0] if line is None else match[0].replace('">', f'#{LINE}{line}">', 1)

    return SHOWN.sub(point, EQUATION.sub(draw, content))
