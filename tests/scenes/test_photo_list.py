"""The photos that ``eval.photos`` limits the figures to."""

import itertools
from pathlib import Path

import pytest

from pipeline.datasets.base import Scene
from pipeline.evaluation.photos import listed
from tests.helpers import ROOT

SCENES = [Scene(Path(f"{name}.png"), Path("m.png"), "val", f"val/{name}") for name in "abc"]


def test_only_the_listed_photos_are_scored_each_once(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("val/c\n\n val/a \nval/c\n")
    assert [scene.key for scene in listed(SCENES, path)] == ["val/c", "val/a"]


@pytest.mark.parametrize(
    "written", ["a", "val/a.png", "val\\a", "valid/a.JPG", " images/Val/a.png ", "\ufeffval/a"]
)
def test_photos_are_named_as_in_labels(tmp_path: Path, written: str) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(f"{written}\n", "utf-8")
    assert [scene.key for scene in listed(SCENES, path)] == ["val/a"]


@pytest.mark.parametrize("written", ["val/stra\u00dfe a\u0308", "stra\u00dfe \u00e4.jpg"])
def test_letters_with_accents_are_compared_as_labels_are(tmp_path: Path, written: str) -> None:
    path = tmp_path / "keys.txt"
    path.write_text(written, "utf-8")
    scene = Scene(Path("x.png"), Path("m.png"), "val", "val/stra\u00dfe \u00e4")
    assert listed([scene], path) == [scene]
    spaced = Scene(Path("x .png"), Path("m.png"), "val", "val/x ")
    for name in ("val/x ", "x .png", "x"):
        path.write_text(name)
        assert listed([spaced], path) == [spaced]


def test_a_photo_without_a_mask_is_named_and_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("val/a\nval/d\n")
    scenes = [*SCENES, Scene(Path("d.png"), None, "val", "val/d")]
    assert [scene.key for scene in listed(scenes, path)] == ["val/a"]
    assert "photos without a human mask are not scored (1): val/d" in caplog.text
    path.write_text("d\n")
    with pytest.raises(ValueError, match="'val/d' has no human mask"):
        listed(scenes, path)


def test_a_name_of_two_photos_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("a\n")
    scenes = [Scene(Path("a"), Path("m"), "val", f"val/{name}/a") for name in "xy"]
    with pytest.raises(ValueError, match="'a' is ambiguous: it matches 'val/x/a' and 'val/y/a'"):
        listed(scenes, path)


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("val/a\nval/my photo\n", r"'val/my photo' is not a validation photo"),
        ("", "file is empty"),
        (None, "no such"),
    ],
)
def test_a_list_that_does_not_fit_is_refused(
    tmp_path: Path, content: str | None, found: str
) -> None:
    path = tmp_path / "keys.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(ValueError, match=rf"eval\.photos.*{found}"):
        listed(SCENES, path)


def test_the_halves_of_camvid_share_no_photo_and_three_borders() -> None:
    choose, report = (
        (ROOT / f"bench/splits/camvid_val_{half}.txt").read_text().split()
        for half in ("choose", "report")
    )
    assert (len(choose), len(report), len(set(choose) & set(report))) == (52, 49, 0)
    halves = [key in choose for key in sorted(choose + report)]
    assert sum(one != two for one, two in itertools.pairwise(halves)) == 3
