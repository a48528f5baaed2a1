"""Fuzzing of all parsers: a valid result, or a one-sentence error that names the file.

The suite runs the same examples each time, in seconds. New examples, for ten minutes:

    pytest tests/repository/test_fuzz.py --hypothesis-profile=fuzz
"""

import json
import resource
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.store.reader import PseudoMaskStore
from tests.helpers.fuzz_targets import TARGETS, Target

PER_TARGET = 3 * settings().max_examples
# Bytes that a parser may ask for beyond what the process has. Pillow reserves up to 4 GiB for a
# part of a PNG that claims to be so long; nothing is written there.
MEMORY = 2**33
PIECES = [
    b"",
    b"\0",
    b"\xff",
    b"\n",
    b'"',
    b",",
    b"[",
    b"{",
    b"}",
    b"-",
    b"0",
    b"9" * 400,
    b"1e999",
]
PIECES += [b"9" * 400, b"NaN", b"null", b"true", b"../", b"/", b"\\u0000", b"\\ud800", b"\t"]
PIECES += [b"\xed\xa0\x80"]
PIECES += [b"\x7f\xff\xff\xff", b"\xff\xff\xff\xff", b"\x80\0\0\0", b"*a", b"&a ", b"!!x ", b"<<: "]
Change = tuple[float, int, bytes]
CHANGES = st.lists(
    st.tuples(
        st.floats(0, 1),  # where, as a share of the file
        st.sampled_from([0, 1, 1, 2, 4, 16, 10**6]),  # bytes taken away
        st.sampled_from(PIECES) | st.binary(min_size=1, max_size=4),  # bytes put there
    ),
    min_size=1,
    max_size=6,
)
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.sampled_from(
        [10**30, -1, 0, 255, 256, "", "../x", "/etc/x", "\0", "\ud800", "a\nb", "road"]
    )
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=8,
)
QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
LIMITS: dict[str, Any] = {"deadline": timedelta(seconds=30), "suppress_health_check": QUIET}


@pytest.fixture(autouse=True)
def bounded(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Limit memory and pixels, so that a file that claims terabytes fails the test."""
    monkeypatch.setenv("CARB_MAX_PIXELS", str(2**20))
    before = resource.getrlimit(resource.RLIMIT_AS)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.fixture
def store(store_of: Any) -> PseudoMaskStore:
    opened: PseudoMaskStore = store_of(
        {"global": {key: np.ones((3, 2, 2)) for key in "ab"}}, {"a": (8, 8), "b": (8, 8)}
    )
    return opened


@pytest.fixture
def folder(tmp_path: Path, store: PseudoMaskStore, name: str) -> Path:
    """A valid folder of a target."""
    target, path = TARGETS[name], tmp_path / "files"
    if name == "store":
        return Path(shutil.copytree(store.path, path))
    path.mkdir()
    for other, content in {**target.beside, target.name: target.valid}.items():
        (path / other).write_bytes(content)
    return path


def check(target: Target, path: Path, content: bytes) -> None:
    """The property: a valid result, or one sentence about the file or its folder."""
    path.write_bytes(content)
    try:
        right = target.read(path)
    except ValueError as error:
        said = str(error)
        assert path.name in said or str(path.parent) in said, said
        assert len(said) < 800
        assert "MemoryError" not in said
        return
    assert right


def changed(content: bytes, changes: list[Change]) -> bytes:
    """Replace pieces of the bytes."""
    for place, taken, put in changes:
        start = round(place * len(content))
        content = content[:start] + put + content[start + taken :]
    return content


@pytest.mark.filterwarnings("ignore")  # Pillow and numpy warn of what they then read or refuse
@pytest.mark.parametrize("name", TARGETS)
def test_changed_bytes_are_read_or_refused_in_one_sentence(name: str, folder: Path) -> None:
    target = TARGETS[name]
    path = folder / target.name
    valid = path.read_bytes()
    assert target.read(path)

    @settings(max_examples=max(1, PER_TARGET // target.cost), **LIMITS)
    @given(CHANGES)
    def holds(changes: list[Change]) -> None:
        check(target, path, changed(valid, changes))

    holds()


JSON = [name for name, target in TARGETS.items() if target.name.endswith(".json")]


def places(content: Any) -> list[list[Any]]:
    """Paths to every value of a JSON."""
    inner = content.items() if isinstance(content, dict) else enumerate(content)
    found: list[list[Any]] = []
    for key, value in inner:
        deeper = places(value) if isinstance(value, dict | list) else []
        found += [[key], *([key, *rest] for rest in deeper)]
    return found


@pytest.mark.parametrize("name", JSON)
def test_other_values_in_json_are_read_or_refused_in_one_sentence(name: str, folder: Path) -> None:
    target = TARGETS[name]
    path = folder / target.name
    valid = path.read_text()

    @settings(max_examples=max(1, PER_TARGET // target.cost), **LIMITS)
    @given(st.sampled_from(places(json.loads(valid))), VALUES, st.booleans())
    def holds(place: list[Any], value: Any, gone: bool) -> None:
        content = inner = json.loads(valid)
        for key in place[:-1]:
            inner = inner[key]
        inner[place[-1]] = value
        if gone:
            del inner[place[-1]]
        check(target, path, json.dumps(content).encode())

    holds()
