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
    """Write a folder as a command does."""
    with outputs(command, folders={"--out": out}), atomic_path(out) as draft:
        for name, text in content.items():
            write(draft / name, text)


def refused(message: str, command: str = "eval", **given: Mapping[str, Path | None]) -> None:
    with pytest.raises(ValueError, match=message):
        outputs(command, **given)  # type: ignore[arg-type]


def tree(folder: Path) -> dict[str, str]:
    """Files that are not hidden, by path."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {
        name.as_posix(): (folder / name).read_text()
        for name in found
        if not any(part.startswith(".") for part in name.parts)
    }


OUT = Path("o")
OLD, NEW = {"masks/a.png": "old", "table.csv": "1"}, {"masks/b.png": "new"}


def test_an_empty_folder_and_an_earlier_output_are_replaced_and_hidden_files_stay() -> None:
    OUT.mkdir()
    hidden = [write(OUT / name) for name in (".git/config", "Thumbs.db", "@eaDir/a.jpg")]
    make(OUT, OLD)
    make(OUT, NEW)
    assert [path.read_text() for path in hidden] == ["mine"] * 3
    assert tree(OUT) == NEW | {"Thumbs.db": "mine", "@eaDir/a.jpg": "mine"}


@pytest.mark.parametrize(
    ("before", "mine", "problem"),
    [
        ({}, "masks/a.png", "contains 'masks', which carb did not write"),
        (OLD, "notes.txt", "contains 'notes.txt', which carb did not write"),
        (OLD, "masks/deep/c.png", "contains 'masks/deep/c.png', which carb did not write"),
        (OLD, "masks/a.png", "'masks/a.png' changed since carb wrote it"),
    ],
)
def test_what_carb_did_not_write_is_named_and_stays(
    before: dict[str, str], mine: str, problem: str
) -> None:
    if before:
        make(OUT, before)
    write(OUT / mine, "my annotations")
    there = tree(OUT)
    with pytest.raises(ValueError, match=f"--out o: {problem}; move it away, or name a new folder"):
        make(OUT, NEW)
    assert tree(OUT) == there


def test_a_copy_is_known_by_its_bytes_and_a_link_to_a_folder_is_not_ours() -> None:
    make(OUT, OLD)
    shutil.copytree(OUT, "copy", copy_function=shutil.copyfile)
    make(Path("copy"), NEW)
    write("photos/a.jpg")
    Path("copy/photos").symlink_to(Path("photos").absolute())
    write("copy/z.txt")
    refused("contains 'photos' and 1 more, which", folders={"--out": Path("copy")})


def test_an_output_of_dvc_yaml_at_its_own_place_needs_no_list() -> None:
    write("dvc.yaml", DAG)
    results, store, other = Path("results/eval"), Path("data/masks.zarr"), Path("sub/mine")
    write(results / "notes.txt")
    make(results, NEW)
    assert tree(results) == NEW
    assert not (results / LIST).exists()
    write(store / "zarr.json")
    refused(r"masks.zarr: contains 'zarr.json'", folders={"--out": store})  # of another stage
    make(store, NEW, command="pseudo")
    write(other, "a file")
    refused("sub/mine: already exists", command="other", files={"--summary": other})
    outputs("eval", files={"--summary": other})  # dvc.yaml's wdir


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
    with pytest.raises(ValueError, match=r"--summary s.json: already exists, and carb did not"):
        summarise()
    assert Path("s.json").read_text() == "mine"


def test_a_file_may_lie_in_the_folder_that_the_same_command_writes() -> None:
    for _ in range(2):
        summary = OUT / "metrics.json"
        with outputs("eval", folders={"--out": OUT}, files={"--summary": summary}):
            with atomic_path(OUT) as draft:
                write(draft / "a.csv")
            write_json(summary, [1])
    assert sorted(tree(OUT)) == ["a.csv", "metrics.json"]


def test_what_was_written_before_an_error_is_known() -> None:
    with pytest.raises(OSError, match="full"), outputs("eval", folders={"--out": OUT}):  # noqa: PT012
        with atomic_path(OUT) as draft:
            write(draft / "a.csv")
        raise OSError("full")
    make(OUT, NEW)
    assert tree(OUT) == NEW


def test_places_that_cannot_be_written_are_refused_before_the_work() -> None:
    file = write("file", "x")
    refused("--out file: is a file; name a folder", folders={"--out": file})
    refused("file is a file, not a folder; name another", folders={"--out": file / "deep/er"})
    Path("folder").mkdir()
    refused("--summary folder: is a folder; name a file", files={"--summary": Path("folder")})
    refused("is not a regular file", files={"--summary": Path("/dev/null")})
    if os.geteuid():
        Path("folder").chmod(0o500)
        refused("folder is not writable", folders={"--out": Path("folder/o")})


def test_sources_are_never_replaced_and_outputs_are_separate() -> None:
    outputs("eval", folders={"--out": Path()}, sources={"--model": Path("models/none")})
    file = write("o/models/segmenter/carb.json")
    sources = {"--model": file.parent, "--masks": None}
    refused("--out o: would replace --model o/", folders={"--out": OUT}, sources=sources)
    refused("would replace --metrics", files={"--out": file}, sources={"--metrics": file})
    for curves in (OUT / "curves", Path("./o")):
        refused("name another folder", folders={"--out": OUT, "--curves": curves})
    refused("are the same file", files={"--index": Path("a"), "--image-labels": Path("./a")})


def test_a_damaged_list_lists_nothing_and_names_no_other_folder() -> None:
    make(OUT, OLD)
    with (OUT / LIST).open("a") as handle:
        handle.write('[1]\n{"files": 3}\n{"files": {"table.csv": [1]}}\n\x00\n{"item": "cut o')
    make(OUT, NEW)
    assert tree(OUT) == NEW
