"""Masks of every numbering score what they should, or the command asks; never nonsense."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner, Result

from pipeline.datasets.camvid import COLOURS, id_table
from pipeline.datasets.cityscapes import LABEL_IDS
from pipeline.datasets.wilddash2 import CATEGORY_IDS
from pipeline.report.drawing import palette_of
from pipeline.scenes.classes import LABEL_SPACES, LabelSpace
from pipeline.segmenter.network import build_segmenter
from pipeline.segmenter.saved import load_segmenter, save_segmenter
from stages import eval as evaluate
from stages import predict

SIZE = (96, 64)  # (width, height) of the photos
PHOTOS = ["town/a_000000_000019_leftImg8bit.png", "town/a_000001_000019_leftImg8bit.png"]


@dataclass(frozen=True)
class Scored:
    """A segmenter, photos, and the segmenter's own predictions of them by key."""

    folder: Path
    space: LabelSpace
    answers: dict[str, np.ndarray]

    @property
    def own(self) -> Path:
        return self.folder / "own/masks"

    def write(self, masks: dict[str, np.ndarray], name: str = "{}") -> Path:
        """Write a folder of masks."""
        root = self.folder / f"masks{len(list(self.folder.iterdir()))}"
        for key, mask in masks.items():
            base = key.removesuffix("_leftImg8bit") if "gtFine" in name else key
            path = root / f"{name.format(base)}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(path)
        return root

    def as_ids(self, ids: Any, ignored: int | None = None, name: str = "{}") -> Path:
        """The segmenter's own predictions with other ids; the first row is ``ignored``."""
        masks = {key: np.array(ids, np.uint8)[mask] for key, mask in self.answers.items()}
        for mask in masks.values():
            mask[0] = mask[0] if ignored is None else ignored
        return self.write(masks, name)

    def run(self, masks: Path, *more: str) -> Result:
        out = self.folder / f"scored{len(list(self.folder.iterdir()))}"
        arguments = ["--images", self.folder / "photos", "--masks", masks, "--out", out]
        arguments += ["--model", self.folder / "model", *more]
        result = CliRunner().invoke(evaluate.app, [str(argument) for argument in arguments])
        if result.exit_code == 0:
            figures = json.loads((out / "metrics.json").read_text())
            assert figures["mIoU"] == 1.0, result.output
        return result


def scored(folder: Path, space: str, photos: list[str] = PHOTOS) -> Scored:
    """A segmenter of a data set's classes that names many of them."""
    torch.manual_seed(0)
    classes = LABEL_SPACES[space]
    options = {"encoder_depth": 3, "decoder_channels": [16, 8, 8]}
    model = build_segmenter(
        arch="unet",
        encoder="resnet18",
        num_classes=len(classes.classes),
        options=options,
        text=None,
    )
    with torch.no_grad():
        model.train()(torch.randn(2, 3, 64, 96))
        head = next(layer for layer in model.segmentation_head if hasattr(layer, "bias"))
        head.weight *= 30 / head.weight.flatten(1).norm(dim=1)[:, None, None, None]
    save_segmenter(
        folder / "model",
        model.eval(),
        classes=classes.names,
        palette=classes.palette,
        mean=(0.5, 0.5, 0.5),
        std=(0.3, 0.3, 0.3),
        base_size=(64, 96),
        extra={"dataset": space},
    )
    segmenter, answers = load_segmenter(folder / "model"), {}
    for place, name in enumerate(photos):
        noise = np.random.default_rng(place).integers(0, 255, (8, 12, 3), np.uint8)
        path = folder / "photos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise).resize(SIZE, Image.Resampling.NEAREST).save(path)
        answers[name.rpartition(".")[0]] = segmenter(path)
    done = CliRunner().invoke(
        predict.app,
        [f"{folder}/photos", "--model", f"{folder}/model", "--out", f"{folder}/own"],
    )
    assert done.exit_code == 0, done.output
    return Scored(folder, classes, answers)


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    found = scored(tmp_path_factory.mktemp("city"), "cityscapes")
    assert len(np.unique(list(found.answers.values()))) > 8
    return found


@pytest.mark.parametrize("space", ["cityscapes", "demo", "camvid", "wilddash2"])
def test_own_predictions_score_100(
    space: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    one = scored(tmp_path, space)
    for colours in ("own", "blind"):
        if colours == "blind":
            own = palette_of("colour_blind", one.space.palette)
            for path in one.own.rglob("*.png"):
                with Image.open(path) as opened:
                    picture = opened.copy()
                picture.putpalette(own.tobytes())
                picture.save(path)
        caplog.clear()
        assert one.run(one.own).exit_code == 0
        assert "read as class indices" in caplog.text


def test_corrected_predictions_score_too(city: Scored) -> None:
    masks = {}
    for key, mask in city.answers.items():
        masks[key] = mask.copy()
        masks[key][:5] = 255
    root = city.write(masks)
    for path in root.rglob("*.png"):
        with Image.open(path) as opened:
            picture = opened.copy()
        picture.putpalette(city.space.palette.tobytes())
        picture.save(path)
    assert city.run(root).exit_code == 0


@pytest.mark.parametrize(
    ("ids", "name"),
    [
        (range(19), "{}_gtFine_labelTrainIds"),
        (LABEL_IDS, "{}_gtFine_labelIds"),
        (range(19), "{}_labelTrainIds"),
        (LABEL_IDS, "{}_labelIds"),
        (range(19), "{}_train_id"),
    ],
)
def test_names_say_what_the_ids_are(
    city: Scored, ids: Any, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    assert city.run(city.as_ids(ids, name=name)).exit_code == 0
    assert "as their names say" in caplog.text


def test_ids_say_what_they_are_where_there_is_no_doubt(
    city: Scored, caplog: pytest.LogCaptureFixture
) -> None:
    assert city.run(city.as_ids(LABEL_IDS)).exit_code == 0
    assert "read as labelIds, their ids are 7" in caplog.text
    assert city.run(city.as_ids(LABEL_IDS, ignored=3)).exit_code == 0
    assert city.run(city.as_ids(range(19), ignored=255)).exit_code == 0
    assert "read as class indices, their ids are 0" in caplog.text


@pytest.mark.parametrize(
    ("ids", "ignored"),
    [
        (range(19), None),  # trainIds in grey: labelIds from 0 to 18, too
        (range(19), 19),  # some write 19 for "ignored"
        (LABEL_IDS, 255),
        ([0] * 19, 255),
        ([0] * 19, None),
        ([7] * 19, None),
    ],
)
def test_ids_of_two_meanings_are_asked_for(city: Scored, ids: Any, ignored: int | None) -> None:
    root = city.as_ids(ids, ignored)
    result = city.run(root)
    assert result.exit_code == 2, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error:")]
    assert line.startswith(f"error: --masks {root}: the ids ")
    assert line.endswith(
        "may be class indices or labelIds; say which by --mask-ids class-index or "
        "--mask-ids label-ids"
    )


@pytest.mark.parametrize(
    ("ids", "kind"),
    [(range(19), "class-index"), (range(19), "train-ids"), (LABEL_IDS, "label-ids")],
)
def test_what_the_option_says_holds(city: Scored, ids: Any, kind: str) -> None:
    assert city.run(city.as_ids(ids), "--mask-ids", kind).exit_code == 0


def test_an_id_that_no_kind_has_is_named_with_its_file(
    city: Scored, caplog: pytest.LogCaptureFixture
) -> None:
    result = city.run(city.as_ids(range(19), ignored=77))
    assert result.exit_code == 2
    assert "000019_leftImg8bit.png: holds id 77" in caplog.text


def test_gtfine_as_shipped_is_taken(city: Scored, caplog: pytest.LogCaptureFixture) -> None:
    root = city.as_ids(LABEL_IDS, name="{}_gtFine_labelIds")
    for path in list(root.rglob("*_labelIds.png")):
        with Image.open(path) as opened:
            ids = np.asarray(opened)
        beside = path.name.removesuffix("_labelIds.png")
        train = np.full(256, 255, np.uint8)
        train[list(LABEL_IDS)] = range(19)
        Image.fromarray(train[ids]).save(path.with_name(f"{beside}_labelTrainIds.png"))
        Image.fromarray(ids.astype(np.uint16)).save(path.with_name(f"{beside}_instanceIds.png"))
        Image.fromarray(np.stack([ids] * 3, 2)).save(path.with_name(f"{beside}_color.png"))
        path.with_name(f"{beside}_polygons.json").write_text("{}")
    assert city.run(root).exit_code == 0
    assert "read as labelIds" in caplog.text
    caplog.clear()
    assert city.run(root, "--mask-ids", "train-ids").exit_code == 0
    assert "read as Cityscapes' trainIds" in caplog.text


def test_colour_masks_are_refused_in_a_sentence(city: Scored) -> None:
    colours = {key: city.space.palette[mask] for key, mask in city.answers.items()}
    result = city.run(city.write(colours))
    assert result.exit_code == 2
    assert "must be one 8-bit channel of class ids" in result.stderr


def test_a_missing_mask_is_named_and_the_others_counted(city: Scored) -> None:
    result = city.run(city.write({}, "{}"))
    assert result.exit_code == 2
    root = city.as_ids(LABEL_IDS, name="{}_gtFine_labelIds")
    sorted(root.rglob("*.png"))[0].unlink()
    result = city.run(root)
    assert result.exit_code == 2
    assert "has no town/a_000000_000019_leftImg8bit.png for a_000000_000019" in result.stderr


def test_a_demo_segmenter_is_scored_by_cityscapes_ids(tmp_path: Path) -> None:
    one = scored(tmp_path, "demo")
    names = LABEL_SPACES["cityscapes"].names
    places = [names.index(name) for name in one.space.names]
    labels = [LABEL_IDS[place] for place in places]
    assert one.run(one.as_ids(places, name="{}_labelTrainIds")).exit_code == 0
    assert one.run(one.as_ids(labels, name="{}_gtFine_labelIds")).exit_code == 0
    assert one.run(one.as_ids(range(17))).exit_code == 0
    result = one.run(one.as_ids(labels))
    assert result.exit_code == 2
    assert "are no class indices of the segmenter, but may be labelIds" in result.stderr
    assert one.run(one.as_ids(labels), "--mask-ids", "label-ids").exit_code == 0


def test_camvids_masks_are_read_by_ids_and_by_colours(tmp_path: Path) -> None:
    one = scored(tmp_path, "camvid", ["a.png", "b.png"])
    assert id_table()[11] == 255
    assert one.run(one.as_ids(range(11), ignored=11)).exit_code == 0
    colours = np.array([COLOURS[name][-1] for name in one.space.names], np.uint8)
    shipped = {key: colours[mask] for key, mask in one.answers.items()}
    assert one.run(one.write(shipped, "{}_L")).exit_code == 0
    result = one.run(one.as_ids(range(11)), "--mask-ids", "label-ids")
    assert result.exit_code == 2
    assert "do not exist for the segmenter's classes" in result.stderr


def test_wilddashs_masks_are_read_by_panoptic_json_and_by_category(tmp_path: Path) -> None:
    one = scored(tmp_path, "wilddash2", ["a.jpg"])
    assert one.run(one.as_ids(CATEGORY_IDS)).exit_code == 0
    mask = one.answers["a"]
    root = one.write({"a": np.stack([mask + 1, mask * 0, mask * 0], axis=2)})
    segments = [{"id": place + 1, "category_id": one_} for place, one_ in enumerate(CATEGORY_IDS)]
    content = {"annotations": [{"file_name": "a.png", "segments_info": segments}]}
    (tmp_path / "panoptic.json").write_text(json.dumps(content))
    assert one.run(root).exit_code == 0
    (tmp_path / "panoptic.json").rename(root / "panoptic.json")
    assert one.run(root).exit_code == 0
