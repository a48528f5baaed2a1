"""The command line `carb`: stages as subcommands, fast help, valid examples in help texts."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from importlib import import_module
from typing import Any

import pytest
from ruamel.yaml import YAML
from typer.core import TyperGroup
from typer.main import get_command

from stages.__main__ import PIPELINE, TOOLS, stage_names
from tests.helpers import ROOT

EXAMPLE = re.compile(r"^ *(?:carb |python -m stages\.|typer stages/).*$", re.MULTILINE)
STAGES = stage_names()


def carb(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run the console script in its own process."""
    return subprocess.run(
        [sys.executable, "-m", "stages", *arguments],
        cwd=ROOT,
        env=os.environ | {"TERM": "dumb", "COLUMNS": "100"} | environment,
        capture_output=True,
        text=True,
    )


def commands_of(stage: str) -> dict[str, Any]:
    """The command of a stage, or its subcommands by name."""
    whole = get_command(import_module(f"stages.{stage}").app)
    return {"": whole} | (whole.commands if isinstance(whole, TyperGroup) else {})


def words_of(example: str) -> tuple[str, list[str]]:
    """The stage that an example calls, and its arguments."""
    first, *rest = shlex.split(example)
    if first == "carb":
        return rest[0].replace("-", "_"), rest[1:]
    if first == "python":
        return rest[1].removeprefix("stages."), rest[2:]
    return rest[0].removeprefix("stages/").removesuffix(".py"), rest[2:]


def test_every_stage_is_a_command_of_carb() -> None:
    files = {path.stem for path in (ROOT / "stages").glob("*.py")} - {"__init__", "__main__"}
    assert set(STAGES) == files
    assert (*TOOLS, *PIPELINE) == tuple(STAGES)
    assert set(PIPELINE) == set(YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"])
    shown = carb("--help").stdout
    for name in STAGES:
        assert f" {name.replace('_', '-')} " in shown


def test_the_version_is_that_of_the_package() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert carb("--version").stdout == f"carb-wsss {project['version']}\n"


@pytest.mark.parametrize("stage", STAGES)
def test_help_shows_a_valid_example(stage: str) -> None:
    for words, command in commands_of(stage).items():
        examples = [found.strip() for found in EXAMPLE.findall(command.help or "")]
        assert examples, f"stages/{stage}.py {words}: add a line 'carb {stage} ...' to its help"
        for example in examples:
            called, arguments = words_of(example)
            assert called == stage, example
            assert arguments[: len(words.split())] == words.split(), example
            command.make_context(
                stage, arguments[len(words.split()) :]
            )  # raises if an argument is wrong


@pytest.mark.parametrize("stage", STAGES)
def test_every_option_has_a_help_text(stage: str) -> None:
    for command in commands_of(stage).values():
        assert [option.name for option in command.params if not getattr(option, "help", "")] == []


def test_help_imports_no_slow_library() -> None:
    program = (
        "import sys\nfrom stages.__main__ import main\nsys.argv = ['carb', '--help']\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'numpy', 'PIL', 'zarr', 'matplotlib', 'pydantic'} & set(sys.modules)\n"
        "sys.exit(f'help loads {heavy}' if heavy else 0)"
    )
    run = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr


def test_the_shell_completes_stages_and_options() -> None:
    def complete(words: str, place: int) -> list[str]:
        return carb(
            _CARB_COMPLETE="complete_bash", COMP_WORDS=words, COMP_CWORD=str(place)
        ).stdout.split()

    assert complete("carb eval", 1) == ["eval", "eval-pseudo"]
    assert complete("carb eval --im", 2) == ["--images", "--image-labels"]


def test_usage_errors_name_the_subcommand() -> None:
    run = carb("draw", "--train", "0")
    assert run.returncode == 2
    assert "Usage: carb draw" in run.stderr
    assert "'--train'" in run.stderr
