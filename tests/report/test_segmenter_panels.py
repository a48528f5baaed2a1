"""Which images a panel shows, and previews of training composed with their images."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.datasets.base import Scene
from pipeline.report.segmenter_panels import preview_panel, ranked

PALETTE = np.array([[200, 0, 0], [0, 100, 0]], np.uint8)


def test_images_are_ranked_by_their_own_iou(tmp_path: Path) -> None:
    own = {"a": 0.5, "b": math.nan, "c": 0.1, "d": 0.9, "e": 0.5, "f": 0.3}
    scenes = [Scene(tmp_path, None, "val", key) for key in own]

    def keys(count: int) -> dict[str, str]:
        found = ranked(scenes, own, count)
        return {name: "".join(scene.key for scene in few) for name, few in found.items()}

    assert keys(2) == {"best": "da", "median": "ae", "worst": "cf"}
    assert keys(9) == {"best": "daefc", "median": "daefc", "worst": "cfead"}
    assert ranked(scenes[1:2], own, 3) == {}


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    """An image of 640x320, with previews of half its size."""
    Image.new("RGB", (640, 320), (90, 90, 90)).save(tmp_path / "a.png")
    left = np.zeros((160, 320), np.uint8)
    left[:, :160] = 1
    maps = {"global": left, "segmenter": 1 - left, "noisy": 255 * left}
    for name, values in maps.items():
        image = Image.fromarray(values)
        if name != "noisy":
            image.putpalette(PALETTE.ravel().tolist())
        image.save(tmp_path / f"a-{name}.png")
    images = [{"key": "val/a", "maps": {name: f"a-{name}.png" for name in maps}}]
    content = {"step": 20, "classes": ["road", "car"], "images": images}
    (tmp_path / "previews.json").write_text(json.dumps(content))
    return Scene(tmp_path / "a.png", None, "val", "val/a")


def test_previews_stand_beside_their_images(scene: Scene, tmp_path: Path) -> None:
    panel = preview_panel(tmp_path, [scene], PALETTE)
    assert panel is not None
    assert panel.width == 8 + 4 * (320 + 8)
    row = np.asarray(panel)[98 + 80, 8:]
    lefts, rights = ([row[328 * k + x].tolist() for k in range(4)] for x in (80, 240))
    assert lefts[:3] == [[90, 90, 90], [0, 100, 0], [200, 0, 0]]
    assert rights == [[90, 90, 90], [200, 0, 0], [0, 100, 0], [90, 90, 90]]
    assert lefts[3] != [90, 90, 90]  # marked


def test_without_previews_nothing_is_drawn_and_damage_is_named(
    scene: Scene, tmp_path: Path
) -> None:
    assert preview_panel(tmp_path / "none", [scene], PALETTE) is None
    assert preview_panel(tmp_path, [], PALETTE) is None
    (tmp_path / "a-noisy.png").unlink()
    with pytest.raises(ValueError, match=r"previews\.json: damaged .*; run `dvc repro --force tra"):
        preview_panel(tmp_path, [scene], PALETTE)
    (tmp_path / "previews.json").write_text("{")
    with pytest.raises(ValueError, match=r"previews\.json: damaged"):
        preview_panel(tmp_path, [scene], PALETTE)
