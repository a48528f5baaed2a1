"""A small random segmenter and a command line, shared by the tests of this folder."""

import io
import logging
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from stages import predict
from tests.helpers.small_photos import random_segmenter

Run = Callable[..., str]


@pytest.fixture(scope="session")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_segmenter(tmp_path_factory.mktemp("model") / "segmenter")


@pytest.fixture
def run(segmenter: Path) -> Run:
    """Runs a command and returns its log and output as one line."""

    def run(*arguments: str | Path, model: Path = segmenter, code: int = 0, app=predict.app) -> str:
        line = [*map(str, arguments), "--model", str(model)]
        log = logging.getLogger("carb")
        log.addHandler(handler := logging.StreamHandler(lines := io.StringIO()))
        done = CliRunner().invoke(app, line)
        log.removeHandler(handler)
        assert done.exit_code == code, f"{done.output} {done.exception!r}"
        return " ".join(f"{lines.getvalue()} {done.output}".split())

    return run
