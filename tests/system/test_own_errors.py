"""Errors of libraries are never shown as if they were written for users."""

import errno
import gc
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from pipeline.scenes.image_io import read_image
from pipeline.system.command import command
from pipeline.system.progress import prefetch_in_threads
from tests.helpers import ROOT


def one_value() -> object:
    return torch.nn.BatchNorm2d(3).train()(torch.zeros(1, 3, 1, 1))


LIBRARIES: dict[str, Callable[[], object]] = {
    "torch": one_value,
    "numpy, in Python": lambda: np.stack([]),
    "pathlib": lambda: Path("a").relative_to("b"),
    "int": lambda: int("many"),
    "in a thread": lambda: list(
        prefetch_in_threads(["b"], lambda name: Path("a").relative_to(name))
    ),
}


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_librarys_error_keeps_its_traceback(name: str) -> None:
    @command
    def main() -> None:
        LIBRARIES[name]()

    with pytest.raises(ValueError, match=r".") as caught:
        main()
    assert caught.value.__traceback__ is not None


def said(work: Callable[[], object], capsys: pytest.CaptureFixture[str]) -> str:
    """What a command prints that fails with this error."""

    @command
    def main() -> None:
        work()

    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    return capsys.readouterr().err


def in_a_thread() -> object:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(read_image, Path("gone.png")).result()


def wrapped() -> object:
    try:
        return int("many")
    except ValueError as error:
        raise ValueError("gone.png: many is no number") from error


@pytest.mark.parametrize(
    "work",
    [lambda: read_image(Path("gone.png")), in_a_thread, wrapped],
    ids=["here", "thread", "cause"],
)
def test_our_sentences_are_shown(
    work: Callable[[], object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert said(work, capsys).startswith("error: gone.png: ")


def test_what_the_system_says_of_files_is_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = said(lambda: (tmp_path / "x").read_text(), capsys)
    assert found == f"error: [Errno 2] No such file or directory: '{tmp_path / 'x'}'\n"

    def full() -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "x")

    assert "No space left on device" in said(full, capsys)


def test_a_librarys_oserror_keeps_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_text("no picture")

    @command
    def main() -> None:
        Image.open(tmp_path / "x.png")

    with pytest.raises(OSError, match="cannot identify"):
        main()


@pytest.fixture
def freed() -> Iterator[None]:
    """A caught error refers to its loader, whose process ends with it."""
    yield
    gc.collect()


class Photos(Dataset[int]):
    """Fails as an item of a loader: by our own sentence, or by a library's."""

    def __init__(self, work: Callable[[], object]) -> None:
        self.work = work

    def __len__(self) -> int:
        return 1

    def __getitem__(self, place: int) -> int:
        self.work()
        return place


def read_a_missing_photo() -> object:
    return read_image(Path("gone.png"))


@pytest.mark.usefixtures("freed")
def test_the_sentence_of_a_loaders_process_is_shown_alone(
    capsys: pytest.CaptureFixture[str],
) -> None:
    loader = DataLoader(Photos(read_a_missing_photo), num_workers=1)
    found = said(lambda: list(loader), capsys)
    assert found.startswith("error: gone.png: not readable as a picture (no such file)")
    assert "Traceback" not in found


@pytest.mark.usefixtures("freed")
def test_a_librarys_error_in_a_loaders_process_keeps_its_traceback() -> None:
    @command
    def main() -> None:
        list(DataLoader(Photos(one_value), num_workers=1))

    with pytest.raises(ValueError, match="more than 1 value per channel"):
        main()


def test_a_users_own_pipeline_py_is_named_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "pipeline.py").write_text("raise RuntimeError")
    command = [sys.executable, "-m", "stages.draw", "--help"]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {tmp_path / 'pipeline.py'}: hides carb's package")
    assert done.stderr.count("\n") == 1
