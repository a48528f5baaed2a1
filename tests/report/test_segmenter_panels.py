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
    maps = {"global": left, "segmenter-1": left, "segmenter-2": 1 - left, "noisy": 255 * left}
    for name, values in maps.items():
        image = Image.fromarray(values)
        if name != "noisy":
            image.putpalette(PALETTE.ravel().tolist())
        image.save(tmp_path / f"{name}.png")
    steps = []
    for step in (10, 20):
        files = {"global": "global.png", "segmenter": f"segmenter-{step // 10}.png"}
        images = [{"key": "val/a", "maps": {**files, "noisy": "noisy.png"}}]
        steps.append({"step": step, "images": images})
    content = {**steps[1], "classes": ["road", "car"], "earlier": steps[:1]}
    (tmp_path / "previews.json").write_text(json.dumps(content))
    return Scene(tmp_path / "a.png", None, "val", "val/a")


def test_previews_of_each_step_are_shown_beside_their_image(scene: Scene, tmp_path: Path) -> None:
    panel = preview_panel(tmp_path, [scene], PALETTE)
    assert panel is not None
    assert panel.width == 8 + 3 * (320 + 8)  # 6 cells in two lines
    lines = [np.asarray(panel)[98 + 80 + top, 8:] for top in (0, 160 + 8 + 30)]
    lefts, rights = (
        [line[328 * k + x].tolist() for line in lines for k in range(3)] for x in (80, 240)
    )
    grey, red, green = [90, 90, 90], *PALETTE.tolist()
    assert lefts[:4] == [grey, green, green, red]
    assert rights == [grey, red, red, green, grey, grey]
    assert grey not in lefts[4:]  # marked


def test_without_previews_nothing_is_drawn_and_damage_is_named(
    scene: Scene, tmp_path: Path
) -> None:
    assert preview_panel(tmp_path / "none", [scene], PALETTE) is None
    assert preview_panel(tmp_path, [], PALETTE) is None
    (tmp_path / "noisy.png").unlink()
    with pytest.raises(ValueError, match=r"previews\.json: damaged .*; run `dvc repro --force tra"):
        preview_panel(tmp_path, [scene], PALETTE)
    (tmp_path / "previews.json").write_text("{")
    with pytest.raises(ValueError, match=r"previews\.json: damaged"):
        preview_panel(tmp_path, [scene], PALETTE)
