"""Resumed predictions: finished ones are kept after damaged files, stops and kills."""

import json
import os
import signal
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.deploy.prediction_files import Predictor
from pipeline.segmenter.inference import TestTimeOptions
from pipeline.segmenter.saved import load_segmenter
from pipeline.system.files import LIST
from stages import eval as evaluate
from tests.deploy.conftest import Run
from tests.helpers.small_photos import SPACE, film, scene

SCORED = ("--images", "photos", "--masks", "human")


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four photos of two sizes, with masks."""
    monkeypatch.chdir(tmp_path)
    for folder in ("photos", "human"):
        Path(folder).mkdir()
    for number, name in enumerate("abcd"):
        size = (96, 64) if number < 3 else (40, 30)
        scene(*size, number).save(f"photos/{name}.png")
        human = np.random.default_rng(number).integers(0, 11, size[::-1], np.uint8)
        Image.fromarray(human).save(f"human/{name}.png")


def files(out: str = "o") -> dict[str, bytes]:
    found = (path for path in Path(out).rglob("*") if path.is_file() and path.name != LIST)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in found}


def masks(out: str = "o") -> set[str]:
    return {name.removeprefix("masks/") for name in files(out) if name.startswith("masks/")}


def times() -> dict[str, int]:
    return {name: Path("o", name).stat().st_mtime_ns for name in files() if "/" in name}


def damage(path: str) -> None:
    Path(path).write_bytes(Path(path).read_bytes()[:200])


def test_damaged_photos_are_named_and_the_others_are_kept(run: Run) -> None:
    damage("photos/b.png")
    Path("photos/gone.png").symlink_to("nowhere.png")
    said = run("photos", "--out", "o", code=2)
    assert "photos/b.png: not readable as an image" in said
    last = said[said.index("error:") :]
    assert "photos/b.png, photos/gone.png: 2 of 5 files are not readable and were skipped" in last
    assert masks() == {"a.png", "c.png", "d.png"}
    before = times()
    scene(96, 64, 1).save("photos/b.png")
    Path("photos/gone.png").unlink()
    assert "3 of 4 already finished" in run("photos", "--out", "o")
    assert before.items() <= times().items()
    run("photos", "--out", "whole")
    assert files() == files("whole")


def test_a_single_damaged_photo_leaves_no_folder(run: Run) -> None:
    damage("photos/b.png")
    assert "b.png: not readable" in run("photos/b.png", "--out", "o", code=2)
    assert not Path("o").exists()
    said = run("photos/a.png", "photos/b.png", "--out", "o", code=2)
    assert "skipped, the other 1 are finished" in said


def test_damaged_videos_are_named_and_the_others_are_kept(run: Run) -> None:
    Path("videos").mkdir()
    Path("videos/noise.mp4").write_bytes(bytes(range(256)) * 40)
    film(Path("videos/whole.mp4"), size=(64, 96), rate=Fraction(5))
    parts = [film(Path(f"{w}.ts"), size=(64, w), rate=Fraction(5)) for w in (96, 48)]
    Path("videos/mixed.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    said = run("videos", "--out", "o", "--frames", code=2)
    assert "videos/noise.mp4: not readable as a video" in said
    assert "videos/mixed.ts: frame 5 has 48x64 pixels, the first has 96x64" in said
    assert "overlays/mixed.mp4" not in files()
    assert {"overlays/whole.mp4", "masks/whole/000004.png"} <= {*files()}
    before = times()
    Path("videos/noise.mp4").unlink()
    Path("videos/mixed.ts").unlink()
    run("videos", "--out", "o", "--frames")
    assert times() == before
    run("videos", "--out", "o")  # without --frames these are removed
    assert not masks()


def test_a_stopped_run_keeps_what_is_finished_and_continues(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    save, seen = Predictor.save_maps, []

    def save_and_stop(
        predictor: Predictor, folder: Path, key: str, maps: np.ndarray, *, ending: str
    ) -> None:
        save(predictor, folder, key, maps, ending=ending)
        seen.append(key)
        if len(seen) == 2:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Predictor, "save_maps", save_and_stop)
        said = run(*SCORED, "--out", "o", code=143, app=evaluate.app)
    assert "stopped by SIGTERM, predict 2/4" in said
    assert masks() == {"a.png", "b.png"}
    before = times()
    assert "2 of 4 already finished" in run(*SCORED, "--out", "o", app=evaluate.app)
    assert before.items() <= times().items()
    run(*SCORED, "--out", "whole", app=evaluate.app)
    assert files() == files("whole")


def test_a_video_that_is_stopped_starts_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    source = film(Path("ride.mp4"), size=(64, 96), rate=Fraction(5))
    monkeypatch.setattr("pipeline.deploy.predict.stop_requested", lambda: True)
    assert "ride.mp4 1/5 frames (it starts again" in run(source, "--out", "o", code=143)
    assert not Path("o").exists()


def test_models_and_options_are_never_mixed(run: Run, segmenter: Path) -> None:
    loaded = load_segmenter(segmenter)
    first = Predictor(loaded, TestTimeOptions(), SPACE.palette, command="predict")
    others = [
        replace(first, segmenter=replace(loaded, digest="0" * 64)),
        replace(first, segmenter=replace(loaded, base_size=(32, 48))),
        replace(first, palette=SPACE.palette[::-1]),
        replace(first, command="eval"),
        replace(first, mask_format="ids"),
        replace(first, ensemble=(replace(loaded, digest="1" * 64),)),
        *(
            replace(first, test_time=TestTimeOptions(**options))
            for options in ({"flip": True}, {"scales": (0.5,)}, {"window": (32, 32)})
        ),
    ]
    assert all(other.made_with() != first.made_with() for other in others)
    run("photos", "--out", "o")
    said = run("photos/a.png", "--out", "o", "--flip")
    assert "o: made with another model or other options; replaced" in said
    assert masks() == {"a.png"}
    before = times()
    said = run("photos/a.png", "--out", "o", "--flip", "--force")
    assert "--force: predicting everything again" in said
    after = times()
    assert before.keys() == after.keys()
    assert all(before[name] < after[name] for name in before)


def test_a_photo_that_changed_is_predicted_again_and_others_are_kept(run: Run) -> None:
    run("photos", "--out", "o")
    scene(96, 64, 9).save("photos/b.png")
    Path("photos/c.png").unlink()
    Path("o/masks/d.png").unlink()
    said = run("photos", "--out", "o")
    assert "1 of 3 already finished" in said
    assert "predictions of earlier runs kept: 1" in said
    assert {"c.png", "d.png"} <= masks()
    Path("elsewhere").mkdir()
    scene(96, 64, 5).save("elsewhere/a.png")
    stamp = Path("photos/a.png").stat()
    os.utime("elsewhere/a.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    before = files()["masks/a.png"]
    run("elsewhere", "--out", "o")
    assert files()["masks/a.png"] != before


def test_a_persons_files_in_an_output_are_never_lost(run: Run) -> None:
    run("photos/a.png", "--out", "o")
    Path("o/masks/a.png").write_bytes(b"corrected by hand")
    for more in ([], ["--force"], ["--flip"]):
        assert "'masks/a.png' changed since" in run("photos", "--out", "o", *more, code=2)
    assert Path("o/masks/a.png").read_bytes() == b"corrected by hand"
    Path("mine/masks").mkdir(parents=True)
    Path("mine/masks/a.png").write_bytes(b"drawn by hand")
    assert "--out mine: contains 'masks'" in run("photos", "--out", "mine", code=2)
    assert files("mine") == {"masks/a.png": b"drawn by hand"}


def test_a_kill_between_two_files_does_not_make_them_a_persons(run: Run) -> None:
    run("photos", "--out", "o")
    Path("o/overlays/b.png").unlink()  # as if the kill had come before it was moved
    with Path("o", LIST).open("a") as handle:
        handle.write('{"item": "photo c", "fi')
    assert "3 of 4 already finished" in run("photos", "--out", "o")
    assert "overlays/b.png" in files()


def test_metrics_of_a_resumed_run_equal_those_of_a_whole_run(run: Run) -> None:
    run(*SCORED, "--out", "whole", app=evaluate.app)
    damaged = ("photos/b.png", "human/c.png")
    content = [Path(path).read_bytes() for path in damaged]
    for path in damaged:
        damage(path)
    metrics = []
    for _ in range(2):  # the second run scores finished photos again
        assert all(path in run(*SCORED, "--out", "o", app=evaluate.app, code=2) for path in damaged)
        metrics.append(json.loads(Path("o/metrics.json").read_text()))
    assert metrics[0] == metrics[1]
    protocol = metrics[0]["protocol"]
    assert (protocol["photos"], protocol["left out"]) == (2, ["b.png", "c.png"])
    for path, whole in zip(damaged, content, strict=True):
        Path(path).write_bytes(whole)
    run(*SCORED, "--out", "o", app=evaluate.app)
    assert files() == files("whole")


def test_the_current_folder_and_several_sources(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    film(Path("ride.mp4"), size=(64, 96), rate=Fraction(5))
    long = "x" * 251  # with .png as long as the disk allows
    scene(40, 30).save(f"photos/{long}.png")
    Path("here").mkdir()
    monkeypatch.chdir("here")
    for _ in range(2):
        run("../photos/a.png", f"../photos/{long}.png", "../ride.mp4", "--out", ".")
    found = {"masks/a.png", f"overlays/{long}.png", "overlays/ride.mp4", "legend.png"}
    assert found <= {*files(".")}
    scored = ["--images", "../photos", "--out", "."]
    assert "other options; replaced" in run(*scored, app=evaluate.app)
    assert "overlays/ride.mp4" not in files(".")
