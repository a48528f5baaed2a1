"""Proposed labels: confidence, written files, and that corrected labels are kept."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pipeline.config.clip import LevelParams
from pipeline.datasets.image_label_files import read_label_file
from pipeline.proposals.page import Proposal, write_page
from pipeline.proposals.propose import (
    check_no_labels,
    photo_windows,
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


def proposal(name: str, *confidence: float) -> Proposal:
    return Proposal(name, Image.new("RGB", (20, 10), "grey"), np.array(confidence))


FOUND = [proposal("a b.JPG", 0.9, 0.2), proposal("\u00fc/c.webp", 0.25, 0.1), proposal("d", 0, 0)]


def test_confidence_is_the_maximum_over_windows(tmp_path: Path) -> None:
    clip = random_clip(tmp_path / "clip", VIT)
    text = clip.embed_text([["road"], ["car"], ["tree"]], ["{}"])
    levels = [
        LevelParams(zoom=1, window=(64, 64), overlap=0.5),
        LevelParams(zoom=2, window=(32, 96), overlap=0),  # not the tower's size
    ]
    found = window_confidence(PHOTO, clip, text, levels)
    shown = photo_windows(PHOTO, clip, levels)
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


def test_prepare_reads_what_is_written(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "carb")
    write_proposals(tmp_path, FOUND, SPACE.names, threshold=0.25)
    labels = read_label_file(tmp_path / "labels.csv", SPACE.names)
    assert {key: row.tolist() for key, row in labels.items()} == {
        "a b.JPG": [True, False],
        "\u00fc/c.webp": [True, False],
        "d": [False, False],
    }
    text = (tmp_path / "label_confidence.csv").read_text("utf-8-sig")
    assert text.splitlines()[:2] == ['photo,road,"</script>,x"', "a b.JPG,0.900,0.200"]
    assert caplog.messages[-1] == "d: no class proposed; left out of training"
    assert "proposed: 0.7 of 2 classes per photo, 3 photos" in caplog.messages
    assert "nearly every class" not in caplog.text
    write_proposals(tmp_path, FOUND[:2], SPACE.names, threshold=0.1)
    assert "proposed: 2.0 of 2 classes per photo, 2 photos" in caplog.messages
    assert "nearly every class is proposed, hardly better than naming all" in caplog.text


def test_earlier_labels_are_replaced_with_force_only_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    labels = tmp_path / "labels.csv"
    check_no_labels(tmp_path, force=False)
    for number, text in enumerate(("first work", "second work"), start=1):
        labels.write_text(text)
        with pytest.raises(ValueError, match=rf"--force .* this file as labels\.{number}\.csv"):
            check_no_labels(tmp_path, force=False)
        check_no_labels(tmp_path, force=True)
        write_proposals(tmp_path, FOUND, SPACE.names, threshold=0.25)
        assert (tmp_path / f"labels.{number}.csv").read_text() == text
        assert f"{labels}: kept as labels.{number}.csv" in caplog.text
    assert (tmp_path / "labels.1.csv").read_text() == "first work"
    assert labels.read_text("utf-8-sig").startswith("photo,road")


def test_the_page_is_self_contained_and_contains_every_photo(tmp_path: Path) -> None:
    for _ in range(2):  # an earlier page is replaced
        write_page(tmp_path / "proposals", FOUND, SPACE, threshold=0.25)
    assert [path.name for path in (tmp_path / "proposals").iterdir()] == ["correct.html"]
    page = (tmp_path / "proposals/correct.html").read_text("utf-8")
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
    assert all(photo["picture"].startswith("data:image/jpeg;") for photo in content["photos"])
