"""No command replaces what carb did not write."""

import os
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from pipeline.system.files import LIST, atomic_path, write_json
from pipeline.system.outputs import outputs

DAG = """
stages:
  eval:
    cmd: python -m stages.eval --out results/eval
    outs: [results/eval]
    metrics: [{results/segmenter.json: {cache: false}}]
  pseudo:
    cmd: [python -m stages.pseudo]
    outs: [{data/masks.zarr: {persist: true}}]
  other:
    wdir: sub
    cmd: python -m stages.eval
    outs: [mine]
"""


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write(path: str | Path, text: str = "mine") -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def make(out: Path, content: Mapping[str, str], command: str = "eval") -> None:
    """What a command does."""
    with outputs(command, folders={"--out": out}), atomic_path(out) as draft:
        for name, text in content.items():
            write(draft / name, text)


def refused(says: str, command: str = "eval", **given: Mapping[str, Path | None]) -> None:
    with pytest.raises(ValueError, match=says):
        outputs(command, **given)  # type: ignore[arg-type]


def tree(folder: Path) -> dict[str, str]:
    """Files that are not hidden, by path."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {
        name.as_posix(): (folder / name).read_text()
        for name in found
        if not any(part.startswith(".") for part in name.parts)
    }


OLD, NEW = {"masks/a.png": "old", "table.csv": "1"}, {"masks/b.png": "new"}


def test_an_empty_folder_and_an_earlier_output_are_replaced_whole() -> None:
    Path("o").mkdir()
    make(Path("o"), OLD)
    make(Path("o"), NEW)
    assert tree(Path("o")) == NEW


@pytest.mark.parametrize("name", [".DS_Store", "Thumbs.db", ".git/config", "@eaDir/a.jpg"])
def test_hidden_files_neither_count_nor_get_lost(name: str) -> None:
    write(f"o/{name}")
    make(Path("o"), OLD)
    make(Path("o"), NEW)
    assert Path("o", name).read_text() == "mine"
    assert {path: text for path, text in tree(Path("o")).items() if path != name} == NEW


@pytest.mark.parametrize(
    ("before", "mine", "says"),
    [
        ({}, "notes.txt", "contains 'notes.txt', which carb did not write"),
        ({}, "masks/a.png", "contains 'masks', which carb did not write .or an earlier version"),
        (OLD, "notes.txt", "contains 'notes.txt', which carb did not write; move it away"),
        (OLD, "masks/deep/c.png", "contains 'masks/deep/c.png', which carb did not write"),
        (OLD, "masks/a.png", "'masks/a.png' changed since carb wrote it; move it away"),
    ],
)
def test_what_carb_did_not_write_is_named_and_stays(
    before: dict[str, str], mine: str, says: str
) -> None:
    if before:
        make(Path("o"), before)
    write(f"o/{mine}", "my annotations")
    there = tree(Path("o"))
    with pytest.raises(ValueError, match=f"--out o: {says}.*name a new folder"):
        make(Path("o"), NEW)
    assert tree(Path("o")) == there


def test_a_copy_is_known_by_its_bytes_and_a_link_to_a_folder_is_not_ours() -> None:
    make(Path("o"), OLD)
    shutil.copytree("o", "copy", copy_function=shutil.copyfile)
    make(Path("copy"), NEW)
    write("photos/a.jpg")
    Path("copy/photos").symlink_to(Path("photos").absolute())
    write("copy/z.txt")
    refused("contains 'photos' and 1 other, which", folders={"--out": Path("copy")})


def test_an_output_of_dvc_yaml_at_its_own_place_needs_no_list() -> None:
    write("dvc.yaml", DAG)
    write("results/eval/notes.txt")
    make(Path("results/eval"), NEW)
    assert tree(Path("results/eval")) == NEW
    assert not Path("results/eval", LIST).exists()
    write("data/masks.zarr/zarr.json")
    with pytest.raises(ValueError, match=r"masks.zarr: contains 'zarr.json'"):
        make(Path("data/masks.zarr"), NEW)  # it is of another stage
    make(Path("data/masks.zarr"), NEW, command="pseudo")
    write("sub/mine", "a file")
    refused("sub/mine: is there already", command="other", files={"--summary": Path("sub/mine")})
    with outputs("eval", files={"--summary": Path("sub/mine")}):  # dvc.yaml's wdir
        pass


@pytest.mark.parametrize("text", ["", "stages: [", "stages: 3", "\0", "stages:\n  eval: {outs: }"])
def test_another_dvc_yaml_names_no_outputs(text: str) -> None:
    write("dvc.yaml", text)
    write("results/eval/notes.txt")
    refused("contains 'notes.txt'", folders={"--out": Path("results/eval")})


def test_a_file_is_replaced_only_if_carb_wrote_it() -> None:
    def summarise() -> None:
        with outputs("eval", files={"--summary": Path("s.json")}):
            write_json(Path("s.json"), [1])

    write("s.json", "")  # as mktemp leaves it
    summarise()
    summarise()
    write("s.json", "mine")
    with pytest.raises(ValueError, match=r"--summary s.json: is there already, and carb did not"):
        summarise()
    assert Path("s.json").read_text() == "mine"


def test_a_file_may_lie_in_the_folder_that_the_same_command_writes() -> None:
    for _ in range(2):
        out, summary = Path("o"), Path("o/figures.json")
        with outputs("eval", folders={"--out": out}, files={"--summary": summary}):
            with atomic_path(out) as draft:
                write(draft / "a.csv")
            write_json(summary, [1])
    assert sorted(tree(Path("o"))) == ["a.csv", "figures.json"]


def test_what_was_written_before_an_error_is_known() -> None:
    with pytest.raises(OSError, match="full"), outputs("eval", folders={"--out": Path("o")}):  # noqa: PT012
        with atomic_path(Path("o")) as draft:
            write(draft / "a.csv")
        raise OSError("full")
    make(Path("o"), NEW)
    assert tree(Path("o")) == NEW


def test_places_that_cannot_be_written_are_refused_before_the_work() -> None:
    file = write("file", "x")
    refused("--out file: is a file; name a folder", folders={"--out": file})
    refused("file is a file, no folder; name another", folders={"--out": file / "deep/er"})
    Path("folder").mkdir()
    refused("--summary folder: is a folder; name a file", files={"--summary": Path("folder")})
    refused("is no ordinary file", files={"--summary": Path("/dev/null")})
    if os.geteuid():
        Path("folder").chmod(0o500)
        refused("folder cannot be written to", folders={"--out": Path("folder/o")})


def test_sources_are_never_replaced() -> None:
    outputs("eval", folders={"--out": Path()}, sources={"--model": Path("models/none")})
    model = write("o/models/segmenter/carb.json").parent
    out = Path("o")
    refused(
        "--out o: would be replaced, and --model .* lies there",
        folders={"--out": out},
        sources={"--model": model, "--masks": None},
    )
    refused(
        "would be replaced, and --metrics",
        files={"--out": model / "carb.json"},
        sources={"--metrics": model / "carb.json"},
    )


def test_outputs_lie_apart() -> None:
    refused("must lie apart", folders={"--out": Path("o"), "--curves": Path("o/curves")})
    refused("must lie apart", folders={"--out": Path("o"), "--curves": Path("./o")})
    refused("different files", files={"--index": Path("a"), "--image-labels": Path("./a")})


def test_a_damaged_list_lists_nothing_and_names_no_other_folder() -> None:
    make(Path("o"), OLD)
    with Path("o", LIST).open("a") as handle:
        handle.write('[1]\n{"files": 3}\n{"files": {"table.csv": [1]}}\n\x00\n{"item": "cut o')
    make(Path("o"), NEW)
    assert tree(Path("o")) == NEW
