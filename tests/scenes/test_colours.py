"""Colours of a user's classes: those of Cityscapes by synonym, all distinct."""

import pytest

from pipeline.scenes.classes import LABEL_SPACES
from pipeline.scenes.colours import Colour, class_colours

CITYSCAPES = {info.name: info.colour for info in LABEL_SPACES["cityscapes"].classes}


def colours_of(*names: str) -> list[Colour]:
    return class_colours(names, [(name,) for name in names], [None] * len(names))


def test_names_of_camvid_have_the_colours_of_cityscapes() -> None:
    means = "sky|building|pole|road|sidewalk|vegetation|traffic sign|fence|car|person|rider"
    expected = [CITYSCAPES[name] for name in means.split("|")]
    assert colours_of(*LABEL_SPACES["camvid"].names) == expected


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("Trees", "vegetation"),
        ("parked_car", "car"),
        ("Buses", "bus"),
        ("zebra crosswalk", "sidewalk"),
        ("Traffic-Light", "traffic light"),
        ("people", "person"),
    ],
)
def test_a_synonym_has_the_colour_of_the_class_it_means(name: str, meant: str) -> None:
    assert colours_of("pothole", name)[1] == CITYSCAPES[meant]


def test_a_word_for_clip_gives_the_colour_of_a_name_in_another_language() -> None:
    assert class_colours(["Baum"], [["tree"]], [None]) == [CITYSCAPES["vegetation"]]


def test_a_second_synonym_is_another_shade_and_written_colours_are_kept() -> None:
    tree, vegetation, bush = colours_of("tree", "vegetation", "bush")
    assert vegetation == CITYSCAPES["vegetation"]
    assert all(green > max(red, blue) for red, green, blue in (tree, bush))
    assert len({tree, vegetation, bush}) == 3
    green = CITYSCAPES["vegetation"]
    assert class_colours(["road", "tree"], [[], []], [green, None])[1] != green


def test_colours_of_many_names_are_distinct() -> None:
    names = [*LABEL_SPACES["wilddash2"].names, *LABEL_SPACES["camvid"].names[4:]]
    names = list(dict.fromkeys([*names, *(f"{n} tree" for n in range(12)), *map(str, range(30))]))
    assert len(set(colours_of(*names))) == len(names)
