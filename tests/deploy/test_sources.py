"""Sources of `predict`: photos and videos in files and folders, with unique output names."""

import os
from pathlib import Path

import pytest

from pipeline.deploy.score_folder import folder_scenes
from pipeline.deploy.sources import check_case, find_sources
from pipeline.system.files import LIST


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def touch(*names: str) -> None:
    for name in names:
        Path("d", name).parent.mkdir(parents=True, exist_ok=True)
        Path("d", name).touch()


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["ride.mp4", "ride/000000.png"], "d/ride/000000.png: .* frame of d/ride.mp4"),
        (["a.jpg", "a.png/b.jpg"], r"folder masks/a.png, which is the prediction of d/a.jpg"),
        (["ride.mov", "ride.mp4/b.jpg"], "folder overlays/ride.mp4, which is .* of d/ride.mov"),
        (["ride.mp4", "ride.mov"], "has the same name; rename one"),
    ],
)
def test_predictions_of_one_name_are_refused(names: list[str], says: str) -> None:
    touch(*names)
    with pytest.raises(ValueError, match=says):
        find_sources([Path("d")], Path("o"), frames=True)


def test_similar_names_are_accepted() -> None:
    touch("ride.mp4", "ride.png", "ride/front.png", "ride/000.png", "other/000000.png")
    assert len(find_sources([Path("d")], Path("o"), frames=True).photos) == 4
    touch("ride/000000.png")
    assert len(find_sources([Path("d")], Path("o"), frames=False).photos) == 5


def test_sources_of_one_name_are_refused() -> None:
    touch("a.png", "deep/a.jpg")
    with pytest.raises(ValueError, match=r"d/deep/a.jpg: has the same name as d/a.png"):
        find_sources([Path("d/a.png"), Path("d/deep")], Path("o"), frames=False)
    same = find_sources([Path("d/a.png"), Path("./d/a.png")], Path("o"), frames=False)
    assert list(same.photos) == ["a"]


def test_patterns_and_lists_keep_the_subfolders() -> None:
    touch("a/1.png", "b/front/1.png", "b/ride.mp4", "b/notes.txt", "c.png", "[1].png")
    sources = {
        "d/*/*": ["a/1", "b/front/1", "b/ride"],
        "d/**/*.png": ["[1]", "a/1", "b/front/1", "c"],
        "d/?": ["a/1", "b/front/1", "b/ride"],
        "d/[1].png": ["[1]"],  # the name of a file
        "d/list.txt": ["a/1", "b/front/1", "b/ride"],
        "d/b/list.txt": ["1"],
    }
    Path("d/list.txt").write_text("\ufeffb/ride.mp4\r\n\n../d/a/1.png\nb/front\n", "utf-8")
    Path("d/b/list.txt").write_text(f"{Path('d/a/1.png').absolute()}\n")
    for source, keys in sources.items():
        found = find_sources([Path(source)], Path("o"), frames=False)
        assert sorted([*found.photos, *found.videos]) == keys


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("e/*.jpg", r"e/\*.jpg: matches neither a photo .* correct the pattern"),
        ("d/*/none*", r"d/\*/none\*: matches neither"),
        ("empty.txt", "empty.txt: lists no file; write the path"),
        ("lost.txt", r"lost.txt: 1 of the listed files do not exist: 'd/lost.png'; correct it"),
        ("binary.txt", r"binary.txt: 2 of the listed files do not exist: '\\x00\\udcff', 'xxx"),
        ("nested.txt", "^nested.txt: must be a photo"),
        ("made.txt", "made.txt: lists files in the output folder d/o"),
    ],
)
def test_patterns_and_lists_without_sources_are_refused(source: str, says: str) -> None:
    touch("a.png", "b/c.png", "o/masks/a.png")
    Path("empty.txt").write_text("\n")
    Path("lost.txt").write_text("d/a.png\nd/lost.png\n")
    Path("binary.txt").write_bytes(b"\0\xff\n" + b"x" * 5000)
    Path("nested.txt").write_text("nested.txt\n")
    Path("made.txt").write_text("d/a.png\nd/o/masks/a.png\n")
    with pytest.raises(ValueError, match=says):
        find_sources([Path(source)], Path("d/o"), frames=False)


def test_earlier_output_matches_no_pattern() -> None:
    touch("a.png", "o/masks/a.png")
    found = find_sources([Path("d/**/*.png")], Path("d/o"), frames=False)
    assert list(found.photos) == ["a"]


def test_subfolders_are_left_out_on_request(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="carb")
    touch("a.png", "ride.mp4", "deep/b.png")
    found = find_sources([Path("d")], Path("o"), frames=False, recursive=False)
    assert [*found.photos, *found.videos] == ["a", "ride"]
    assert caplog.messages == ["d: 1 subfolders were not searched (--no-recursive)"]


def test_names_that_differ_in_case_are_refused_where_the_disk_ignores_case() -> None:
    touch("Ride.png", "ride.jpg")
    found = find_sources([Path("d")], Path("o"), frames=False)
    for name in (LIST, LIST.swapcase()):
        check_case(Path("o"), found)
        Path("o", name).parent.mkdir(exist_ok=True)
        Path("o", name).touch()
    with pytest.raises(ValueError, match=r"d/ride.jpg: differs from d/Ride.png in case only"):
        check_case(Path("o"), found)


def test_links_that_lead_elsewhere_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", logger="carb")
    touch("a.png")
    Path("far").mkdir()
    Path("far/b.png").touch()
    Path("d/link").symlink_to(os.path.abspath("far"))
    assert list(find_sources([Path("d")], Path("o"), frames=False).photos) == ["a", "link/b"]
    folder_scenes(Path("d"), None, out=Path("o"))
    assert caplog.messages == [f"d/link leads to {os.path.abspath('far')}"] * 2
