"""User mistakes: the `Case` class, and functions that damage the files of a run."""

import io
import json
import os
import pickle
import shutil
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Spoil = Callable[[], object]
IMAGE, MASK = "data/demo/train/images/00000.png", "data/demo/train/masks/00000.png"
GREY = np.zeros((128, 256), np.uint8)


@dataclass(frozen=True)
class Case:
    """A mistake: parameters and files changed before a stage, and parts of the expected error."""

    stage: str
    says: tuple[str, ...]
    params: dict[str, Any] = field(default_factory=dict)
    spoil: Spoil = lambda: None
    arguments: tuple[str, ...] = ()
    environment: dict[str, str] = field(default_factory=dict)


def cut(path: str) -> Spoil:
    """Leave the first 300 bytes of a file."""
    return lambda: write(path, Path(path).read_bytes()[:300])()


def replace(path: str, old: str, new: str) -> Spoil:
    """Change text in a file."""
    return lambda: write(path, Path(path).read_text().replace(old, new, 1))()


def write(path: str, content: str | bytes) -> Spoil:
    """Write a file, as a new one: large files of a copied run are hard links."""
    raw = content.encode() if isinstance(content, str) else content
    return lambda: (Path(path).unlink(missing_ok=True), Path(path).write_bytes(raw))


def remove(path: str) -> Spoil:
    """Delete a folder."""
    return lambda: shutil.rmtree(path)


def unlink(path: str) -> Spoil:
    """Delete a file."""
    return lambda: Path(path).unlink()


def folder(path: str) -> Spoil:
    """Put an empty folder in the place of a file, or nowhere."""
    return lambda: (Path(path).unlink(missing_ok=True), Path(path).mkdir())


def save(path: str, values: np.ndarray, **options: Any) -> Spoil:
    """Put a picture in the place of another; ``format`` may differ from the name's ending."""
    return lambda: Image.fromarray(values).save(path, **options)


def chunk(kind: bytes, content: bytes) -> bytes:
    """A chunk of a PNG, with its checksum."""
    end = struct.pack(">I", zlib.crc32(kind + content))
    return struct.pack(">I", len(content)) + kind + content + end


def png(width: int, height: int, *, depth: int = 8, colour: int = 2, rows: bytes = b"") -> bytes:
    """A PNG by its parts; with ``rows`` empty it claims pixels that it does not have."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(kind, content) for kind, content in parts)


class Hostile:
    """Makes a folder when it is unpickled."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (self.path,)


def hostile_pickle(path: str = "harm") -> bytes:
    """A pickle that makes a folder."""
    return pickle.dumps({"a": Hostile(path)})


def hostile_npy(path: str = "harm") -> bytes:
    """The same within a ``.npy``."""
    content = np.empty((), dtype=object)
    content[()] = {"a": Hostile(path)}
    file = io.BytesIO()
    np.save(file, content, allow_pickle=True)
    return file.getvalue()


def own_folder(classes: str | bytes | None, *more: Spoil) -> Spoil:
    """A data set of one's own in ``own/``, then what else is wrong."""

    def spoil() -> None:
        shutil.copytree("data/demo/train/images", "own/images")
        if classes is not None:
            write("own/classes.csv", classes)()
        for step in more:
            step()

    return spoil


def panoptic(name: str) -> Spoil:
    """A WildDash2 in ``own/`` whose annotations name a file."""
    segments = [{"id": 1, "category_id": 7}]
    content = {"annotations": [{"file_name": name, "segments_info": segments}]}
    return lambda: (Path("own").mkdir(), write("own/panoptic.json", json.dumps(content))())


def edit(path: str, change: Callable[[Any], object]) -> Spoil:
    """Change the content of a JSON file."""

    def spoil() -> None:
        content = json.loads(Path(path).read_text())
        change(content)
        write(path, json.dumps(content))()

    return spoil
