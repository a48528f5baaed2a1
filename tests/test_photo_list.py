"""The photos that ``eval.photos`` limits the figures to."""

import itertools
from pathlib import Path

import pytest

from pipeline.scene import Scene
from pipeline.scored_photos import listed
from tests.import_closure import ROOT

SCENES = [Scene(Path(f"{name}.png"), Path("m.png"), "val", f"val/{name}") for name in "abc"]


def test_only_the_listed_photos_are_scored_each_once(tmp_path: Path) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("val/c\n\n val/a \nval/c\n")
    assert [scene.key for scene in listed(SCENES, path)] == ["val/c", "val/a"]


@pytest.mark.parametrize(
    ("content", "found"),
    [("val/a\nval/my photo\n", r"'val/my photo' is none"), ("", "it is empty"), (None, "no such")],
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
