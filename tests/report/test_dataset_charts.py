"""Overview of a data set: images of any size, with and without validation images."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.report.dataset_charts import frequency_chart, prepare_report, size_chart
from pipeline.scenes.classes import ClassInfo, LabelSpace
from pipeline.scenes.index import IndexedPhoto, SceneIndex

NAMES = ["road", "a class of a rather long name", "sky"]
SPACE = LabelSpace("mine", tuple(ClassInfo(name, (9, 9, 9), (name,)) for name in NAMES))
FILES = {"photos.png", "sizes.png", "class_frequency.png", "image_labels.csv"}
BLUE, ORANGE = (0, 114, 178), (230, 159, 0)


def photo(split: str, name: str, size: tuple[int, int]) -> IndexedPhoto:
    return IndexedPhoto(f"{split}/{name}", split, f"{split}-{name}.png", size, "digest")


def pixels_of(path: Path, colour: tuple[int, int, int]) -> np.ndarray:
    """How many pixels of each row have a colour."""
    with Image.open(path) as opened:
        return np.asarray((np.asarray(opened.convert("RGB")) == colour).all(axis=2).sum(axis=1))


def test_mixed_sizes_without_validation_images_are_all_shown(tmp_path: Path) -> None:
    sizes = {"a": (30, 60), "b": (60, 30), "c": (20, 200)}
    photos = [photo("train", name, size) for name, size in sizes.items()]
    for one in photos:
        Image.new("RGB", one.size[::-1], BLUE).save(tmp_path / one.image)
    labels = {one.key: np.array([True, False, True]) for one in photos}
    prepare_report(tmp_path / "out", SceneIndex(SPACE, photos), labels, root=tmp_path)
    assert {path.name for path in (tmp_path / "out").iterdir()} == FILES
    table = (tmp_path / "out/image_labels.csv").read_text().splitlines()
    assert table[1:] == ["road,3,1.0", f"{NAMES[1]},0,0.0", "sky,3,1.0"]
    assert pixels_of(tmp_path / "out/photos.png", BLUE).sum() > 210 * (420 + 105)
    assert pixels_of(tmp_path / "out/class_frequency.png", ORANGE).sum() == 0


def test_the_most_frequent_class_comes_first_and_each_split_has_its_bars(tmp_path: Path) -> None:
    train = np.array([[0, 1, 1], [0, 0, 1], [0, 0, 1]], bool)
    frequency_chart({"train": train, "val": train[:1]}, NAMES, tmp_path / "bars.png")
    blue, orange = (pixels_of(tmp_path / "bars.png", colour) for colour in (BLUE, ORANGE))
    lines = [int(blue[part].max()) for part in np.array_split(np.arange(60, len(blue) - 40), 3)]
    assert lines[0] > 2.5 * lines[1] > 0
    assert lines[2] == 0  # no image contains it
    assert orange.max() == blue[60:].max()


@pytest.mark.parametrize("sizes", [[(4000, 3000), (90, 4000)], [(7, 9 + n) for n in range(300)]])
def test_extreme_sizes_and_many_sizes_are_drawn(
    sizes: list[tuple[int, int]], tmp_path: Path
) -> None:
    photos = [photo("train", f"{place}", size) for place, size in enumerate(sizes)]
    size_chart([*photos, photo("val", "v", sizes[0])], tmp_path / "sizes.png")
    assert pixels_of(tmp_path / "sizes.png", BLUE).sum() > 100
    assert pixels_of(tmp_path / "sizes.png", ORANGE).sum() > 20
