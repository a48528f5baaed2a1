"""Manifest of a data set: path, size and digest of each file that its stages read, for DVC."""

import json
import os
from pathlib import Path
from typing import Any

from pipeline.datasets import open_dataset
from pipeline.datasets.collect import used_scenes
from pipeline.system.files import file_digest, write_json


def dataset_manifest(name: str, root: Path, memory: Path) -> list[list[str]] | None:
    """List the images, human masks and tables of a data set; links are followed.

    The list depends on names and content alone, so it is the same on another machine.

    Args:
        name: name of the data set, see `open_dataset`.
        root: its folder.
        memory: file of the digests by size and times, so that only changed files are read; updated.

    Returns:
        ``path, size in bytes, SHA-256`` per file, paths relative to ``root``; or None if the data
        set cannot be opened. `prepare`, which opens it too, reports the error.
    """
    try:
        dataset = open_dataset(name, root)
        scenes = used_scenes(dataset)
        files = {path for scene in scenes for path in (scene.image, scene.mask) if path}
        files |= {*dataset.tables, *([dataset.image_labels] if dataset.image_labels else [])}
        return _lines(sorted(files), root, memory)
    except (OSError, ValueError):
        return None


def _lines(files: list[Path], root: Path, memory: Path) -> list[list[str]]:
    known, read = _remembered(memory), dict[str, list[Any]]()
    lines = []
    for file in files:
        name = file.relative_to(root).as_posix()
        try:
            status = file.stat()
        except OSError:
            lines.append([name, "missing", ""])
            continue
        stamp = [status.st_size, status.st_mtime_ns, status.st_ctime_ns]
        path = os.path.abspath(file)
        *before, digest = known.get(path) or [None]
        if before != stamp:
            digest = file_digest(file)
        read[path] = [*stamp, digest]
        lines.append([name, str(status.st_size), str(digest)])
    if read != known:
        write_json(memory, read)
    return lines


def _remembered(memory: Path) -> dict[str, list[Any]]:
    """The digests of the last run; none if there is no valid record."""
    try:
        content = json.loads(memory.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    valid = isinstance(content, dict) and all(isinstance(row, list) for row in content.values())
    return content if valid else {}
