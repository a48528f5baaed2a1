"""Finished predictions are kept when a file is damaged, a run is stopped, or it runs again."""

import json
import os
import signal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.deploy.predictions import Predictor
from pipeline.system.files import LIST
from stages import eval as evaluate
from stages import predict
from tests.deploy.conftest import Run
from tests.helpers.small_photos import film, random_segmenter, scene

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


def test_a_damaged_photo_is_named_and_the_others_are_kept(run: Run) -> None:
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


def test_one_damaged_photo_alone_leaves_no_folder(run: Run) -> None:
    damage("photos/b.png")
    assert "b.png: not readable" in run("photos/b.png", "--out", "o", code=2)
    assert not Path("o").exists()
    assert "skipped, the other 3 are finished" in run("photos", "--out", "o", code=2)


def test_a_damaged_video_is_named_and_the_others_are_kept(run: Run) -> None:
    Path("photos/noise.mp4").write_bytes(bytes(range(256)) * 40)
    film(Path("photos/whole.mp4"), size=(64, 96), rate=Fraction(5))
    parts = [film(Path(f"{w}.ts"), size=(64, w), rate=Fraction(5)) for w in (96, 48)]
    Path("photos/mixed.ts").write_bytes(b"".join(part.read_bytes() for part in parts))
    said = run("photos", "--out", "o", "--frames", code=2)
    assert "photos/noise.mp4: not readable as a video" in said
    assert "photos/mixed.ts: frame 5 has 48x64 pixels, the first has 96x64" in said
    assert "overlays/mixed.mp4" not in files()
    assert {"overlays/whole.mp4", "masks/whole/000004.png"} <= {*files()}
    before = times()
    Path("photos/noise.mp4").unlink()
    Path("photos/mixed.ts").unlink()
    run("photos", "--out", "o", "--frames")
    assert times() == before
    run("photos", "--out", "o")  # without --frames these are removed
    assert not [name for name in masks() if name.startswith("whole/")]


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send SIGTERM when ``count`` masks are written."""
    save, seen = Predictor.save_maps, iter(range(count - 1))

    def save_and_stop(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        if next(seen, None) is None:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(Predictor, "save_maps", save_and_stop)


@pytest.mark.parametrize("app", [predict.app, evaluate.app])
def test_a_stopped_run_keeps_what_is_finished_and_continues(
    app, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = SCORED if app is evaluate.app else ["photos"]
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        said = run(*sources, "--out", "o", code=143, app=app)
    assert "stopped by SIGTERM, predict 2/4" in said
    assert masks() == {"a.png", "b.png"}
    before = times()
    assert "2 of 4 already finished" in run(*sources, "--out", "o", app=app)
    assert before.items() <= times().items()
    run(*sources, "--out", "whole", app=app)
    assert files() == files("whole")


def test_a_video_that_is_stopped_starts_again(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    source = film(Path("ride.mp4"), size=(64, 96), rate=Fraction(5))
    monkeypatch.setattr("pipeline.deploy.predict.stop_requested", lambda: True)
    assert "ride.mp4 1/5 frames (it starts again" in run(source, "--out", "o", code=143)
    assert not Path("o").exists()


def test_force_predicts_all_again(run: Run) -> None:
    run("photos", "--out", "o")
    before = times()
    assert "--force: predicting everything again" in run("photos", "--out", "o", "--force")
    after = times()
    assert before.keys() == after.keys()
    assert all(before[name] < after[name] for name in before)


@pytest.mark.parametrize(
    "change", [["model"], ["--flip"], ["--palette", "colour_blind"], ["--scale", "0.5"]]
)
def test_two_models_or_options_are_never_mixed(
    change: list[str], run: Run, segmenter: Path, tmp_path: Path
) -> None:
    run("photos", "photos/a.png", "--out", "o")
    other = change == ["model"]
    model, more = (random_segmenter(tmp_path / "x", 7), []) if other else (segmenter, change)
    said = run("photos/a.png", "--out", "o", *more, model=model)
    assert "o: made with another model or other options; replaced" in said
    assert masks() == {"a.png"}
    run("photos/a.png", "--out", "fresh", *more, model=model)
    assert files() == files("fresh")


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


def test_a_person_s_files_in_an_output_are_never_lost(run: Run) -> None:
    run("photos", "--out", "o")
    Path("o/masks/b.png").write_bytes(b"corrected by hand")
    for more in ([], ["--force"], ["--flip"]):
        assert "'masks/b.png' changed since" in run("photos", "--out", "o", *more, code=2)
    assert Path("o/masks/b.png").read_bytes() == b"corrected by hand"
    Path("mine/masks").mkdir(parents=True)
    Path("mine/masks/a.png").write_bytes(b"drawn by hand")
    assert "--out mine: contains 'masks'" in run("photos", "--out", "mine", code=2)
    assert files("mine") == {"masks/a.png": b"drawn by hand"}


def test_a_kill_between_two_files_is_no_one_else_s_work(run: Run) -> None:
    run("photos", "--out", "o")
    Path("o/overlays/b.png").unlink()  # as if the kill had come before it was moved
    with Path("o", LIST).open("a") as handle:
        handle.write('{"item": "photo c", "fi')
    assert "3 of 4 already finished" in run("photos", "--out", "o")
    assert "overlays/b.png" in files()


@pytest.mark.parametrize("damaged", ["photos/b.png", "human/b.png"])
def test_metrics_of_a_resumed_run_are_those_of_one_that_was_not_stopped(
    damaged: str, run: Run
) -> None:
    assert "see whole/metrics.json" in run(*SCORED, "--out", "whole", app=evaluate.app)
    whole = Path(damaged).read_bytes()
    damage(damaged)
    metrics = []
    for _ in range(2):  # the second time finished photos are scored again
        assert damaged in run(*SCORED, "--out", "o", app=evaluate.app, code=2)
        metrics.append(json.loads(Path("o/metrics.json").read_text()))
    assert metrics[0] == metrics[1]
    protocol = metrics[0]["protocol"]
    assert (protocol["photos"], protocol["left out"]) == (3, ["b.png"])
    Path(damaged).write_bytes(whole)
    run(*SCORED, "--out", "o", app=evaluate.app)
    assert files() == files("whole")


def test_the_current_folder_and_several_sources(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    film(Path("ride.mp4"), size=(64, 96), rate=Fraction(5))
    Path("here").mkdir()
    monkeypatch.chdir("here")
    for _ in range(2):
        run("../photos/a.png", "../photos/b.png", "../ride.mp4", "--out", ".")
    assert {"masks/a.png", "overlays/b.png", "overlays/ride.mp4"} <= {*files(".")}
    assert "0/0" not in run("../ride.mp4", "--out", "../alone")
    scored = ["--images", "../photos", "--masks", "../human", "--out", "."]
    assert "other options; replaced" in run(*scored, app=evaluate.app)
    assert "overlays/ride.mp4" not in files(".")


@pytest.mark.parametrize("length", [244, 251])
def test_names_of_photos_may_be_as_long_as_the_disk_takes(length: int, run: Run) -> None:
    name = "x" * length
    scene(40, 30).save(f"photos/{name}.png")
    run(f"photos/{name}.png", "--out", "o")
    assert masks() == {f"{name}.png"}
