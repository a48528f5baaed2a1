"""The photos that ``eval.photos`` limits the metrics to."""

import itertools
from pathlib import Path

import pytest

from pipeline.datasets.base import Scene
from pipeline.evaluation.selection import listed
from tests.helpers import ROOT

SCENES = [
    *(Scene(Path("x.png"), Path("m.png"), "val", f"val/{name}") for name in ("a", "b", "c", "x/a")),
    Scene(Path("x.png"), None, "val", "val/d"),
]


def test_only_the_listed_photos_are_scored_each_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys.txt"
    path.write_text("\ufeffval/c\n\n valid\\b.JPG \nval/c\nval/d\n", "utf-8")
    assert [scene.key for scene in listed(SCENES, path)] == ["val/c", "val/b"]
    assert "photos without a human mask are not scored (1): val/d" in caplog.text


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("val/c\nval/my photo\n", r"'val/my photo' is not "),
        ("a.png\n", "'a.png' is ambiguous: it matches 'val/a' and 'val/x/a'"),
        ("d\n", "'val/d' has no human mask"),
        ("", "file is empty"),
        (None, "no such"),
    ],
)
def test_a_list_that_does_not_match_is_refused(
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
