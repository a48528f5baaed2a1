"""docs/parameters.md compared with the schema; each parameter is described."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from docs import parameters as program
from tests.helpers import ROOT

FILES = [YAML().load(path) for path in (program.PARAMS, ROOT / "recipes/demo-best.yaml")]
ROWS = list(program.parameters(FILES))


def test_page_is_up_to_date() -> None:
    assert program.page() == program.PAGE.read_text("utf-8"), "run `python -m docs.parameters`"


def test_every_parameter_has_a_comment() -> None:
    missing = [row.name for row in ROWS if row.allowed and not row.meaning]
    assert missing == [], "add a comment to each of them in params.yaml"


def test_schema_is_described_to_the_last_level() -> None:
    names = [row.name for row in ROWS]
    assert {"seed", "carb.tau", "dataset.min_pixels", "clip.fused.radius"} <= set(names)
    assert "clip.levels.<level>.zoom" in names
    assert len(names) == len(set(names))


def test_comment_of_several_lines_is_joined_and_ends_at_the_next_section(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a:\n  b: 1   # one\n         # two\n\n# other\nc: [1, 2]  # three\n")
    content = YAML().load(file)
    assert program.comment_of(content["a"], "b") == "one two"
    assert program.comment_of(content, "c") == "three"
    assert program.comment_of(content, "a") == ""


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("carb.tau", "train"),
        ("clip.levels.<level>.zoom", "pseudo, encoder"),
        ("clip.levels", "pseudo, encoder"),
        ("clip.class_prompts", "pseudo"),
        ("seed", ""),
    ],
)
def test_readers_are_the_stages_that_run_again(name: str, found: str) -> None:
    stages = {
        "prepare": {"cmd": "reads none"},
        "pseudo": {"params": ["clip"]},
        "encoder": {"params": ["clip.levels", "carb_like"]},
        "train": {"params": ["carb", "se"]},
    }
    assert program.readers(name, stages) == found
