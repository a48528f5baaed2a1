"""Which photos and videos a command line names, and names that would meet."""

from pathlib import Path

import pytest

from pipeline.deploy.sources import check_capitals, found_in
from pipeline.system.files import LIST


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def touched(*names: str) -> list[Path]:
    for name in names:
        Path("d", name).parent.mkdir(parents=True, exist_ok=True)
        Path("d", name).touch()
    return [Path("d")]


@pytest.mark.parametrize(
    ("names", "says"),
    [
        (["ride.mp4", "ride/000000.png"], "d/ride/000000.png: .* frame of d/ride.mp4"),
        (["x/ride.mov", "x/ride/1234567.jpg"], "frame of d/x/ride.mov"),
        (["a.jpg", "a.png/b.jpg"], r"folder masks/a.png, which is the prediction of d/a.jpg"),
        (["ride.mp4", "ride.mp4/b.jpg"], "folder overlays/ride.mp4, which is .* of d/ride.mp4"),
        (["ride.mp4", "ride.mov"], "has the same name; rename one"),
    ],
)
def test_predictions_of_one_name_are_refused_before_the_work(names: list[str], says: str) -> None:
    if names[0] == "ride.mp4" and names[1] == "ride.mp4/b.jpg":
        touched("ride.mov", names[1])
        says = says.replace("of d/ride.mp4", "of d/ride.mov")
    else:
        touched(*names)
    with pytest.raises(ValueError, match=says):
        found_in([Path("d")], Path("o"), frames=True)


def test_names_that_do_not_meet_are_taken() -> None:
    touched("ride.mp4", "ride.png", "ride/front.png", "ride/000.png", "other/000000.png")
    found = found_in([Path("d")], Path("o"), frames=True)
    assert len(found.photos) == 4
    touched("ride/000000.png")
    assert len(found_in([Path("d")], Path("o"), frames=False).photos) == 5


def test_sources_of_one_name_are_refused() -> None:
    touched("a.png", "deep/a.jpg")
    with pytest.raises(ValueError, match=r"d/deep/a.jpg: d/a.png has the same name"):
        found_in([Path("d/a.png"), Path("d/deep")], Path("o"), frames=False)
    same = found_in([Path("d/a.png"), Path("./d/a.png")], Path("o"), frames=False)
    assert list(same.photos) == ["a"]
    Path("empty").mkdir()
    with pytest.raises(ValueError, match=r"empty: holds neither a photo .* nor a video"):
        found_in([Path("d"), Path("empty")], Path("o"), frames=False)


def test_names_that_differ_by_capitals_meet_on_some_disks() -> None:
    touched("Ride.png", "ride.jpg")
    found = found_in([Path("d")], Path("o"), frames=False)
    for name in (LIST, LIST.swapcase()):
        check_capitals(Path("o"), found)
        Path("o", name).parent.mkdir(exist_ok=True)
        Path("o", name).touch()
    with pytest.raises(ValueError, match=r"d/ride.jpg: d/Ride.png has the same name but for cap"):
        check_capitals(Path("o"), found)
