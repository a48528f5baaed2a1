"""The manifest of a data set: what is read, by name and content alone, each file read once."""

from pathlib import Path

import pytest
from PIL import Image

from pipeline.datasets import manifest
from pipeline.datasets.manifest import dataset_manifest


def folder(root: Path) -> Path:
    for name in ("images/a.png", "images/b/c.png"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (2, 2)).save(root / name)
    (root / "masks").mkdir()
    Image.new("L", (2, 2)).save(root / "masks/a.png")
    (root / "classes.txt").write_text("road\ncar\n")
    (root / "labels.csv").write_text("photo,tags\na,road\n")
    (root / "data.zip").write_text("not read")
    return root


def test_it_lists_images_masks_and_tables_by_name_and_content(tmp_path: Path) -> None:
    one, two = folder(tmp_path / "one"), folder(tmp_path / "two")
    (two / "images/b").rename(tmp_path / "disk")
    (two / "images/b").symlink_to(tmp_path / "disk")  # links are followed
    found = dataset_manifest("folder", one, tmp_path / "memory.json")
    assert found == dataset_manifest("folder", two, tmp_path / "memory.json")
    assert found is not None
    assert [name for name, _, _ in found] == [
        *("classes.txt", "images/a.png", "images/b/c.png", "labels.csv", "masks/a.png")
    ]
    (tmp_path / "disk/c.png").rename(tmp_path / "disk/d.png")
    assert dataset_manifest("folder", two, tmp_path / "memory.json") != found


def test_unchanged_files_are_not_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, memory, read = folder(tmp_path / "own"), tmp_path / "scratch/memory.json", list[str]()

    def digest(path: Path) -> str:
        read.append(path.name)
        return path.read_bytes().hex()

    monkeypatch.setattr(manifest, "file_digest", digest)
    first = dataset_manifest("folder", root, memory)
    assert (len(read), dataset_manifest("folder", root, memory)) == (5, first)
    assert len(read) == 5
    (root / "labels.csv").write_text("photo,tags\na,car\n")
    assert dataset_manifest("folder", root, memory) != first
    assert read[5:] == ["labels.csv"]
    for damaged in ("[", "[]", '{"a": 1}'):
        memory.write_text(damaged)
        dataset_manifest("folder", root, memory)
    assert len(read) == 6 + 3 * 5


def test_a_data_set_that_cannot_be_opened_has_none_and_a_missing_mask_is_listed(
    tmp_path: Path,
) -> None:
    memory = tmp_path / "memory.json"
    assert dataset_manifest("folder", tmp_path / "nowhere", memory) is None
    assert dataset_manifest("folder", tmp_path, memory) is None  # no classes
    for split in ("train", "val"):
        (tmp_path / split / "images").mkdir(parents=True)
        Image.new("RGB", (2, 2)).save(tmp_path / split / "images/a.png")
    lines = dataset_manifest("demo", tmp_path, memory)
    assert lines is not None
    assert ["val/masks/a.png", "missing", ""] in lines
