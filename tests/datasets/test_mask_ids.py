"""Masks for `eval --images`: read in the right numbering, or refused; never misread."""

import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.datasets.base import Scene
from pipeline.datasets.camvid import COLOURS
from pipeline.datasets.cityscapes import LABEL_IDS
from pipeline.datasets.mask_ids import AUTO, PredictedClasses, find_masks, mask_reader
from pipeline.datasets.wilddash2 import CATEGORY_IDS
from pipeline.report.drawing import palette_of
from pipeline.scenes.classes import IGNORE_INDEX, LABEL_SPACES
from stages import eval as evaluate
from stages import predict
from tests.helpers.small_photos import random_segmenter, scene

PHOTOS = ["town/a_000000_000019_leftImg8bit", "town/a_000001_000019_leftImg8bit"]


@dataclass(frozen=True)
class Town:
    """Photos, and the class indices that a segmenter may predict for them."""

    folder: Path
    space: str

    @property
    def predicted(self) -> PredictedClasses:
        space = LABEL_SPACES[self.space]
        palettes = [space.palette, palette_of("colour_blind", space.palette)]
        return PredictedClasses(space.names, palettes, self.space)

    @property
    def classes(self) -> dict[str, np.ndarray]:
        count = len(self.predicted.names)
        return {
            key: np.roll(np.arange(2 * count).reshape(2, -1) % count, n)
            for n, key in enumerate(PHOTOS)
        }

    def write(self, ids: Any, ignored: int | None = None, name: str = "{}") -> Path:
        """Write masks of ``ids[class index]``; the first row is ``ignored``, if that is given."""
        root = self.folder / f"masks{len(list(self.folder.iterdir()))}"
        for key, classes in self.classes.items():
            mask = np.array(ids, np.uint8)[classes]
            mask[0] = mask[0] if ignored is None else ignored
            path = root / f"{name.format(key.removesuffix('_leftImg8bit'))}.png"
            if name == "{}":
                path = root / f"{key}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)
        return root

    def read_back(self, masks: Path, ids: str = AUTO) -> list[int]:
        """Read all masks, and check each pixel that is not ignored; returns the ignored rows."""
        photos = {key: self.folder / "photos" / f"{key}.png" for key in PHOTOS}
        for path in photos.values():
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (2, 2)).save(path)
        found = find_masks(photos, masks, ids)
        scenes = [Scene(photos[key], found[key], "folder", key) for key in photos]
        read = mask_reader(self.predicted, scenes, masks, ids=ids)
        rows = []
        for key, classes in self.classes.items():
            mask = read(found[key])
            rows = [row for row in (0, 1) if (mask[row] == IGNORE_INDEX).all()]
            kept = [row for row in (0, 1) if row not in rows]
            assert np.array_equal(mask[kept], classes[kept])
        return rows


@pytest.fixture
def city(tmp_path: Path) -> Town:
    return Town(tmp_path, "cityscapes")


@pytest.fixture(autouse=True)
def all_log_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "carb")


@pytest.mark.parametrize(
    ("space", "ignored"),
    [("cityscapes", None), ("cityscapes", 255), ("camvid", None), ("wilddash2", None)],
)
def test_masks_in_the_segmenter_s_colours_are_class_indices(
    tmp_path: Path, space: str, ignored: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    town = Town(tmp_path, space)
    for palette in town.predicted.palettes:
        root = town.write(range(len(palette)), ignored)
        for path in root.rglob("*.png"):
            with Image.open(path) as opened:
                image = opened.copy()
            image.putpalette(palette.tobytes())
            image.save(path)
        assert town.read_back(root) == ([] if ignored is None else [0])
        assert "read as class indices" in caplog.text


def test_names_imply_the_ids(city: Town, caplog: pytest.LogCaptureFixture) -> None:
    for ids, name in (
        (range(19), "{}_gtFine_labelTrainIds"),
        (LABEL_IDS, "{}_gtFine_labelIds"),
        (range(19), "{}_train_id"),
    ):
        caplog.clear()
        city.read_back(city.write(ids, name=name))
        assert "as their names say" in caplog.text


def test_ids_without_doubt_are_recognised(city: Town, caplog: pytest.LogCaptureFixture) -> None:
    city.read_back(city.write(LABEL_IDS))
    assert "read as labelIds, their ids are 7-8, 11-13, 17, 19-28, 31-33" in caplog.text
    assert city.read_back(city.write(LABEL_IDS, ignored=3)) == [0]
    assert city.read_back(city.write(range(19), ignored=255)) == [0]
    assert "read as class indices, their ids are 0-18, 255" in caplog.text


@pytest.mark.parametrize(
    ("ids", "ignored"),
    [
        (range(19), None),  # trainIds in grey: labelIds from 0 to 18, too
        (range(19), 19),  # some write 19 for "ignored"
        (LABEL_IDS, 255),
        ([0] * 19, 255),
        ([7] * 19, None),
    ],
)
def test_ambiguous_ids_are_refused(city: Town, ids: Any, ignored: int | None) -> None:
    root = city.write(ids, ignored)
    with pytest.raises(
        ValueError, match=r"may be class indices or labelIds; say which by"
    ) as raised:
        city.read_back(root)
    assert str(raised.value).startswith(f"--masks {root}: the ids ")
    assert str(raised.value).endswith("--mask-ids class-index or --mask-ids label-ids")


def test_the_option_decides(city: Town) -> None:
    for ids, kind in (
        (range(19), "class-index"),
        (range(19), "train-ids"),
        (LABEL_IDS, "label-ids"),
    ):
        city.read_back(city.write(ids), kind)


def test_an_unknown_id_is_named_with_its_file(city: Town) -> None:
    with pytest.raises(ValueError, match=r"000019_leftImg8bit\.png: contains id 77"):
        city.read_back(city.write(range(19), ignored=77))


def test_published_gtfine_is_read(city: Town, caplog: pytest.LogCaptureFixture) -> None:
    root = city.write(LABEL_IDS, name="{}_gtFine_labelIds")
    for path in list(root.rglob("*_labelIds.png")):
        with Image.open(path) as opened:
            ids = np.asarray(opened)
        train = np.full(256, 255, np.uint8)
        train[list(LABEL_IDS)] = range(19)
        others = {"labelTrainIds": train[ids], "instanceIds": ids.astype(np.uint16)}
        for kind, pixels in (others | {"color": np.stack([ids] * 3, 2)}).items():
            Image.fromarray(pixels).save(str(path).replace("labelIds", kind))
    city.read_back(root)
    assert "read as labelIds" in caplog.text
    city.read_back(root, "train-ids")
    assert "read as Cityscapes' trainIds" in caplog.text


def test_a_missing_mask_is_named_and_the_others_counted(city: Town) -> None:
    (city.folder / "empty").mkdir()
    with pytest.raises(ValueError, match=r"leftImg8bit\.png and 1 other photos; add it, or"):
        city.read_back(city.folder / "empty")
    root = city.write(LABEL_IDS, name="{}_gtFine_labelIds")
    sorted(root.rglob("*.png"))[0].unlink()
    with pytest.raises(ValueError, match=r"has no town/a_000000_000019_leftImg8bit\.png for a_"):
        city.read_back(root)


def test_masks_of_a_demo_segmenter_may_have_cityscapes_ids(tmp_path: Path) -> None:
    town = Town(tmp_path, "demo")
    names = LABEL_SPACES["cityscapes"].names
    indices = [names.index(name) for name in town.predicted.names]
    labels = [LABEL_IDS[index] for index in indices]
    town.read_back(town.write(indices, name="{}_labelTrainIds"))
    town.read_back(town.write(labels, name="{}_gtFine_labelIds"))
    town.read_back(town.write(range(17)))
    with pytest.raises(
        ValueError, match="are not class indices of the segmenter, but may be label"
    ):
        town.read_back(town.write(labels))
    town.read_back(town.write(labels), "label-ids")


def test_camvid_masks_are_read_by_ids_or_colours(tmp_path: Path) -> None:
    town = Town(tmp_path, "camvid")
    assert town.read_back(town.write(range(11), ignored=11)) == [0]
    colours = [COLOURS[name][-1] for name in town.predicted.names]
    town.read_back(town.write(colours, name="{}_leftImg8bit_L"))
    with pytest.raises(ValueError, match="the segmenter's classes have no labelIds"):
        town.read_back(town.write(range(11)), "label-ids")


def test_wilddash_masks_are_read_by_panoptic_json_or_categories(tmp_path: Path) -> None:
    town = Town(tmp_path, "wilddash2")
    town.read_back(town.write(CATEGORY_IDS))
    root = town.write([(index + 1, 0, 0) for index in range(25)])
    segments = [{"id": n, "category_id": category} for n, category in enumerate(CATEGORY_IDS, 1)]
    names = [f"{Path(key).name}.png" for key in PHOTOS]
    content = [{"file_name": name, "segments_info": segments} for name in names]
    (tmp_path / "panoptic.json").write_text(json.dumps({"annotations": content}))
    town.read_back(root)
    (tmp_path / "panoptic.json").rename(root / "panoptic.json")
    town.read_back(root)


def test_own_predictions_score_100_and_coloured_masks_are_refused(tmp_path: Path) -> None:
    space = LABEL_SPACES["cityscapes"]
    model = random_segmenter(tmp_path / "model", space=space, extra={"dataset": "cityscapes"})
    (tmp_path / "in").mkdir()
    scene(96, 64).save(tmp_path / "in/a.png")
    arguments = [f"{tmp_path}/in", "--model", str(model), "--out", f"{tmp_path}/own"]
    assert CliRunner().invoke(predict.app, arguments).exit_code == 0
    arguments = ["--images", f"{tmp_path}/in", "--model", str(model), "--out", f"{tmp_path}/out"]
    run = CliRunner().invoke(evaluate.app, [*arguments, "--masks", f"{tmp_path}/own/masks"])
    assert run.exit_code == 0, run.output
    assert json.loads((tmp_path / "out/metrics.json").read_text())["mIoU"] == 1.0
    run = CliRunner().invoke(evaluate.app, [*arguments, "--masks", f"{tmp_path}/own/overlays"])
    assert run.exit_code == 2
