"""Proposed labels: what they say, what is written, and that nothing of a person's is lost."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config.params import LevelParams
from pipeline.datasets.label_files import read_label_file
from pipeline.proposals.page import MOST, class_sheet, correction_page, sheet_names, write_sheets
from pipeline.proposals.propose import (
    Proposal,
    check_no_labels,
    looks,
    temperature,
    window_confidence,
    write_proposals,
)
from pipeline.scenes.classes import ClassInfo, LabelSpace
from tests.helpers.clip_folder import VIT, random_clip

SPACE = LabelSpace(
    "folder",
    (ClassInfo("road", (1, 2, 3), ("road",)), ClassInfo("</script>,x", (255, 0, 0), ("x",))),
)
PHOTO = Image.fromarray(np.random.default_rng(0).integers(0, 256, (72, 150, 3), dtype=np.uint8))


def proposal(name: str, *confidence: float, size: tuple[int, int] = (20, 10)) -> Proposal:
    return Proposal(name, Image.new("RGB", size, "grey"), np.array(confidence))


FOUND = [proposal("a b.JPG", 0.9, 0.2), proposal("\u00fc/c.webp", 0.25, 0.1), proposal("d", 0, 0)]


def test_confidence_is_that_of_the_window_that_shows_a_class_best(tmp_path: Path) -> None:
    clip = random_clip(tmp_path / "clip", VIT)
    text = clip.embed_text([["road"], ["car"], ["tree"]], ["{}"])
    levels = [
        LevelParams(zoom=1, window=(64, 64), overlap=0.5),
        LevelParams(zoom=2, window=(32, 96), overlap=0),  # not the tower's size
    ]
    found = window_confidence(PHOTO, clip, text, levels)
    shown = looks(PHOTO, clip, levels)
    assert [len(boxes) for _, boxes in shown] == [1, 4, 20]
    best = torch.zeros(3)
    mean, std = torch.tensor(clip.mean)[:, None, None], torch.tensor(clip.std)[:, None, None]
    for pixels, boxes in shown:
        for box in boxes:
            top, left, height, width = map(int, box)
            window = pixels[top : top + height, left : left + width].permute(2, 0, 1) / 255
            window = torch.nn.functional.interpolate(
                ((window - mean) / std)[None], (64, 64), mode="bicubic", antialias=True
            )
            with torch.no_grad():
                embedded = clip.model.encode_image(window, normalize=True)  # type: ignore[operator]
            probs = (temperature(clip) * embedded @ text.T).softmax(dim=1)[0]
            best = torch.maximum(best, probs)
    assert torch.allclose(found, best, atol=1e-5)
    assert 1 / 3 <= found.max() <= 1


def test_what_is_written_is_what_prepare_reads(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_proposals(tmp_path, FOUND, SPACE.names, threshold=0.25)
    labels = read_label_file(tmp_path / "labels.csv", SPACE.names)
    assert {key: row.tolist() for key, row in labels.items()} == {
        "a b.JPG": [True, False],
        "\u00fc/c.webp": [True, False],
        "d": [False, False],
    }
    text = (tmp_path / "label_confidence.csv").read_text("utf-8-sig")
    assert text.splitlines()[:2] == ['photo,road,"</script>,x"', "a b.JPG,0.900,0.200"]
    assert caplog.messages[-1] == "d: no class at all; left out of training"


def test_labels_are_not_written_over_unasked(tmp_path: Path) -> None:
    check_no_labels(tmp_path, force=False)
    (tmp_path / "labels.csv").touch()
    check_no_labels(tmp_path, force=True)
    with pytest.raises(ValueError, match=r"already; --force .* keeps this one as labels\.1\.csv"):
        check_no_labels(tmp_path, force=False)


def test_earlier_labels_are_kept_under_a_name_of_their_own(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = tmp_path / "labels.csv"
    for number, text in enumerate(("first work", "second work"), start=1):
        labels.write_text(text)
        write_proposals(tmp_path, FOUND, SPACE.names, threshold=0.25)
        assert (tmp_path / f"labels.{number}.csv").read_text() == text
        assert f"{labels}: kept as labels.{number}.csv, with its corrections" in caplog.text
    assert (tmp_path / "labels.1.csv").read_text() == "first work"
    assert labels.read_text("utf-8-sig").startswith("photo,road")


def test_each_class_has_a_sheet_of_its_own(tmp_path: Path) -> None:
    assert sheet_names(["traffic light", "a/b", "A b", "..", "\u00fc"]) == [
        "traffic-light",
        "a-b-1",
        "A-b-2",
        "class",
        "\u00fc",
    ]
    for _ in range(2):
        write_sheets(tmp_path / "proposals", FOUND, SPACE, threshold=0.25)
    names = sorted(path.name for path in (tmp_path / "proposals").iterdir())
    assert names == ["correct.html", "road.png", "script-x.png"]


def test_equal_proposals_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_sheets(tmp_path / name, FOUND, SPACE, threshold=0.25)
    for path in (tmp_path / "one").iterdir():
        assert path.read_bytes() == (tmp_path / "two" / path.name).read_bytes()


def test_a_sheet_of_many_photos_shows_those_near_the_threshold() -> None:
    many = [proposal(f"{number}.jpg", number / 400, 0) for number in range(400)]
    few = class_sheet(many[:MOST], 0, "road", threshold=0.5)
    assert class_sheet(many, 0, "road", threshold=0.5).height < few.height + 200


def test_the_page_needs_nothing_else_and_holds_every_photo() -> None:
    page = correction_page(FOUND, SPACE, threshold=0.25)
    assert not re.search(r"https?:|src=|href=|@import|url\(", page)
    assert page.count("</script>") == 2
    content = json.loads(re.search(r'id="content">(.*?)</script>', page, re.S)[1])  # type: ignore[index]
    assert content["classes"] == SPACE.names
    assert content["colours"] == ["#010203", "#ff0000"]
    assert [photo["tags"] for photo in content["photos"]] == [
        [True, False],
        [True, False],
        [False, False],
    ]
    assert all(
        photo["picture"].startswith("data:image/jpeg;base64,") for photo in content["photos"]
    )
