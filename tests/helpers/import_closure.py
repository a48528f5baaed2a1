"""Which of our files a stage imports, directly or not; also inside functions.

python -m tests.helpers.import_closure    write them into dvc.yaml, for DVC does not follow imports
"""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = {"pipeline", "stages", "demo"}


def _file_of(module: str) -> Path | None:
    base = ROOT / module.replace(".", "/")
    for path in (base.with_suffix(".py"), base / "__init__.py"):
        if path.is_file():
            return path
    return None


def modules_named_in(path: Path) -> set[str]:
    """Dotted names of our modules that a file imports, parents included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    ours = {name for name in names if name.split(".")[0] in PACKAGES}
    parents = {name.rsplit(".", depth)[0] for name in ours for depth in range(name.count(".") + 1)}
    return {name for name in ours | parents if _file_of(name)}


def import_closure(stage: str) -> list[str]:
    """Files that ``python -m stages.<stage>`` imports of this repository, relative to its root."""
    start = ROOT / "stages" / f"{stage}.py"
    seen, todo = {start, ROOT / "stages" / "__init__.py"}, [start]
    while todo:
        for module in modules_named_in(todo.pop()):
            path = _file_of(module)
            if path is not None and path not in seen:
                seen.add(path)
                todo.append(path)
    return sorted(path.relative_to(ROOT).as_posix() for path in seen)


def with_imports(dag: str) -> str:
    """The text of dvc.yaml with each stage's imported files as its last ``deps``."""

    def listed(match: re.Match[str]) -> str:
        others = [line for line in match[3].splitlines() if not line.endswith(".py")]
        ours = [f"      - {path}" for path in import_closure(match[2])]
        return match[1] + "\n".join([*others, *ours]) + "\n"

    stage = r"(^  (\w+):\n(?:^    .*\n)*?^    deps:\n)((?:^      - .*\n)+)"
    return re.sub(stage, listed, dag, flags=re.MULTILINE)


if __name__ == "__main__":
    dag_file = ROOT / "dvc.yaml"
    dag_file.write_text(with_imports(dag_file.read_text("utf-8")), "utf-8")
