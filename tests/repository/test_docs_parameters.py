"""docs/parameters.md matches the schema, and each parameter has a meaning."""

from pathlib import Path

from ruamel.yaml import YAML

from docs import parameters as program

ROWS = list(program.parameters(YAML().load(program.PARAMS)))


def test_page_is_up_to_date() -> None:
    assert program.page() == program.PAGE.read_text("utf-8"), "run `python -m docs.parameters`"


def test_every_parameter_says_what_it_means() -> None:
    silent = [row.name for row in ROWS if row.allowed and not row.meaning]
    assert silent == [], "write a comment behind each of them in params.yaml"


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


def test_readers_are_the_stages_that_run_again() -> None:
    stages = {
        "prepare": {"cmd": "reads none"},
        "pseudo": {"params": ["clip"]},
        "encoder": {"params": ["clip.levels", "carb_like"]},
        "train": {"params": ["carb", "se"]},
    }
    assert program.readers("carb.tau", stages) == ["train"]
    assert program.readers("clip.levels.<level>.zoom", stages) == ["pseudo", "encoder"]
    assert program.readers("clip.class_prompts", stages) == ["pseudo"]
    assert program.readers("seed", stages) == []
    clip = [program.Parameter(name, "", "") for name in ("clip.levels", "clip.model")]
    assert program.read_by(clip, stages) == "Read by `pseudo`; `levels` also by `encoder`."
