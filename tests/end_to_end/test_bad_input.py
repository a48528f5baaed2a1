"""User mistakes: one-sentence error, exit code 2, no file changed."""

from pathlib import Path

import pytest

from tests.helpers import bad_files, bad_settings
from tests.helpers.bad_settings import PHOTOS
from tests.helpers.tiny_run import SHORT, file_states, run_stage, write_params

CASES = bad_files.CASES | bad_settings.CASES
USAGE: dict[str, tuple[str, tuple[str, ...], str]] = {  # refused by typer itself
    "unknown option": ("prepare", ("--colour", "red"), "No such option"),
    "scale of zero": ("eval", ("--images", PHOTOS, "--scale", "0"), "--scale"),
    "window with one side": ("eval", ("--images", PHOTOS, "--window", "64"), "--window"),
    "radius not a number": ("eval", ("--images", PHOTOS, "--edge-radius", "wide"), "--edge-radius"),
    "unexpected argument": ("prepare", ("data/demo",), "data/demo"),
}


@pytest.mark.parametrize("name", CASES)
def test_mistake_gives_one_sentence_and_changes_no_file(
    name: str, run_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = CASES[name]
    write_params(run_copy, SHORT | case.params)
    for variable, value in case.environment.items():
        monkeypatch.setenv(variable, value)
    case.spoil()
    before = file_states(run_copy)
    result = run_stage(case.stage, *case.arguments)
    assert result.exit_code == 2, f"{result.output} {result.exception!r}"
    lines = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert len(lines) == 1, result.output
    assert len(lines[0]) < 1000
    assert "Traceback" not in result.output
    for part in case.says:
        assert part in lines[0]
    assert file_states(run_copy) == before
    assert not Path("harm").exists()


@pytest.mark.parametrize("name", USAGE)
def test_wrong_command_line_shows_the_usage(
    name: str, finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stage, arguments, found = USAGE[name]
    monkeypatch.chdir(finished)
    result = run_stage(stage, *arguments)
    assert result.exit_code == 2, result.output
    assert found in result.stderr
    assert "Traceback" not in result.output


def test_photo_without_any_class_is_logged_and_left_out(
    run_copy: Path, caplog: pytest.LogCaptureFixture
) -> None:
    header, first, *rest = Path("data/image_labels.csv").read_text().splitlines()
    empty = ",".join([first.split(",")[0], *["0"] * header.count(",")])
    Path("labels.csv").write_text("\n".join([header, empty, *rest]) + "\n")
    write_params(run_copy, {"dataset.image_labels": "labels.csv"})
    assert run_stage("prepare").exit_code == 0
    assert "train/00000 has no class; left out" in caplog.text
    assert "train/00000" not in Path("data/image_labels.csv").read_text()
