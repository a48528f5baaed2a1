"""Finished predictions are kept: a file is damaged, a run is stopped, or it runs again."""

import io
import json
import logging
import os
import signal
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from pipeline.deploy import predictions as folder_answers
from pipeline.system.files import LIST
from stages import eval as evaluate
from stages import predict
from tests.helpers.small_photos import film, random_segmenter, scene

NAMES = ("a", "b", "c", "d")


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_segmenter(tmp_path_factory.mktemp("model") / "segmenter")


@pytest.fixture(autouse=True)
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Four photos of two sizes, with masks."""
    monkeypatch.chdir(tmp_path)
    for number, name in enumerate(NAMES):
        for folder in ("photos", "human"):
            Path(folder).mkdir(exist_ok=True)
        size = (96, 64) if number < 3 else (40, 30)
        scene(*size, number).save(f"photos/{name}.png")
        human = np.random.default_rng(number).integers(0, 11, size[::-1], np.uint8)
        Image.fromarray(human).save(f"human/{name}.png")
    return Path("photos")


def run(*arguments: str | Path, model: Path, code: int = 0, app=predict.app) -> str:
    """What a command says, in its log and at its end."""
    line = [*map(str, arguments), "--model", str(model)]
    log = logging.getLogger("carb")
    log.addHandler(handler := logging.StreamHandler(lines := io.StringIO()))
    done: Result = CliRunner().invoke(app, line)
    log.removeHandler(handler)
    assert done.exit_code == code, f"{done.output} {done.exception!r}"
    return " ".join(f"{lines.getvalue()} {done.output}".split())


def files(out: Path = Path("o")) -> dict[str, bytes]:
    found = (path for path in out.rglob("*") if path.is_file() and path.name != LIST)
    return {path.relative_to(out).as_posix(): path.read_bytes() for path in found}


def times(out: Path = Path("o")) -> dict[str, int]:
    return {name: (out / name).stat().st_mtime_ns for name in files(out) if "/" in name}


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


def test_a_damaged_photo_is_named_and_the_others_are_kept(segmenter: Path) -> None:
    damage(Path("photos/b.png"))
    Path("photos/gone.png").symlink_to("nowhere.png")
    said = run("photos", "--out", "o", model=segmenter, code=2)
    assert "photos/b.png: not readable as a picture" in said
    last = said[said.index("error:") :]
    assert "photos/b.png, photos/gone.png: 2 of 5 are not readable and left out" in last
    assert {name for name in files() if "masks" in name} == {f"masks/{n}.png" for n in "acd"}
    before = times()
    scene(96, 64, 1).save("photos/b.png")
    Path("photos/gone.png").unlink()
    assert "3 of 4 are finished" in run("photos", "--out", "o", model=segmenter)
    after = times()
    assert {name: after[name] for name in before} == before
    run("photos", "--out", "whole", model=segmenter)
    assert files() == files(Path("whole"))


def test_one_damaged_photo_alone_leaves_no_folder(segmenter: Path) -> None:
    damage(Path("photos/b.png"))
    assert "b.png: not readable" in run("photos/b.png", "--out", "o", model=segmenter, code=2)
    assert not Path("o").exists()
    assert "left out, 3 others are finished" in run("photos", "--out", "o", model=segmenter, code=2)


def test_a_damaged_video_is_named_and_the_others_are_kept(segmenter: Path) -> None:
    Path("photos/noise.mp4").write_bytes(bytes(range(256)) * 40)
    whole = film(Path("photos/whole.mp4"), size=(64, 96), rate=Fraction(5))
    changing = film(Path("photos/small.mp4"), size=(32, 48), rate=Fraction(5)).read_bytes()
    Path("photos/small.mp4").write_bytes(changing)
    said = run("photos", "--out", "o", "--frames", model=segmenter, code=2)
    assert "photos/noise.mp4: not readable as a video" in said
    assert "left out, 6 others are finished" in said
    assert {"overlays/whole.mp4", "overlays/small.mp4", "masks/whole/000004.png"} <= {*files()}
    before = times()
    Path("photos/noise.mp4").unlink()
    run("photos", "--out", "o", "--frames", model=segmenter)
    assert times() == before
    run("photos", "--out", "o", model=segmenter)  # without the frames these are gone
    assert not [name for name in files() if name.startswith("masks/whole")]
    assert whole.exists()


def stop_after(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ask the run to stop when so many masks are written."""
    save = folder_answers.save_maps
    seen = iter(range(count - 1))

    def save_and_stop(*arguments: object) -> None:
        save(*arguments)  # type: ignore[arg-type]
        if next(seen, None) is None:
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(folder_answers, "save_maps", save_and_stop)


@pytest.mark.parametrize("app", [predict.app, evaluate.app])
def test_a_stopped_run_keeps_what_is_finished_and_goes_on(
    app, segmenter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ["--images"] if app is evaluate.app else []
    masks = ["--masks", "human"] if app is evaluate.app else []
    with monkeypatch.context() as patch:
        stop_after(2, patch)
        said = run(*options, "photos", *masks, "--out", "o", model=segmenter, code=143, app=app)
    assert "stopped by SIGTERM, predict 2/4; what is finished is kept" in said
    assert {name for name in files() if "overlays" in name} == {"overlays/a.png", "overlays/b.png"}
    before = times()
    assert "2 of 4 are finished" in run(
        *options, "photos", *masks, "--out", "o", model=segmenter, app=app
    )
    assert {name: times()[name] for name in before} == before
    run(*options, "photos", *masks, "--out", "whole", model=segmenter, app=app)
    assert files() == files(Path("whole"))


def test_a_video_that_is_stopped_begins_anew(
    segmenter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = film(Path("ride.mp4"), size=(64, 96), rate=Fraction(5))
    from pipeline.deploy import predict as prediction_run

    monkeypatch.setattr(prediction_run, "stop_requested", lambda: True)
    said = run(source, "--out", "o", model=segmenter, code=143)
    assert "ride.mp4 1/5 frames, which begins anew next time" in said
    assert not Path("o").exists()


def test_force_makes_all_again(segmenter: Path) -> None:
    run("photos", "--out", "o", model=segmenter)
    before = times()
    assert "--force: all is made again" in run("photos", "--out", "o", "--force", model=segmenter)
    after = times()
    assert before.keys() == after.keys()
    assert all(before[name] < after[name] for name in before)


@pytest.mark.parametrize("change", ["model", "--flip", "--palette", "--scale"])
def test_two_models_or_options_are_never_mixed(
    change: str, segmenter: Path, tmp_path: Path
) -> None:
    run("photos", "photos/a.png", "--out", "o", model=segmenter)
    other = random_segmenter(tmp_path / "other", 7) if change == "model" else segmenter
    options = {"--flip": ["--flip"], "--palette": ["--palette", "colour_blind"]}
    more = options.get(change, ["--scale", "0.5"] if change == "--scale" else [])
    said = run("photos/a.png", "--out", "o", *more, model=other)
    assert "o: made by another model or with other options; all of it is replaced" in said
    assert {name for name in files() if "masks" in name} == {"masks/a.png"}
    run("photos/a.png", "--out", "fresh", *more, model=other)
    assert files() == files(Path("fresh"))


def test_a_photo_that_changed_is_made_again_and_others_are_kept(segmenter: Path) -> None:
    run("photos", "--out", "o", model=segmenter)
    scene(96, 64, 9).save("photos/b.png")
    Path("photos/c.png").unlink()
    Path("o/masks/d.png").unlink()
    said = run("photos", "--out", "o", model=segmenter)
    assert "1 of 3 are finished" in said
    assert "1 others of earlier runs are kept" in said
    assert {"masks/c.png", "masks/d.png"} <= {*files()}
    Path("elsewhere").mkdir()
    scene(96, 64, 5).save("elsewhere/a.png")
    stamp = Path("photos/a.png").stat()
    os.utime("elsewhere/a.png", ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    before = files()["masks/a.png"]
    run("elsewhere", "--out", "o", model=segmenter)
    assert files()["masks/a.png"] != before


def test_a_person_s_files_in_an_output_are_never_lost(segmenter: Path) -> None:
    run("photos", "--out", "o", model=segmenter)
    Path("o/masks/b.png").write_bytes(b"corrected by hand")
    for more in ([], ["--force"], ["--flip"]):
        said = run("photos", "--out", "o", *more, model=segmenter, code=2)
        assert "'masks/b.png' changed since carb wrote it" in said
    assert Path("o/masks/b.png").read_bytes() == b"corrected by hand"
    Path("mine/masks").mkdir(parents=True)
    Path("mine/masks/a.png").write_bytes(b"drawn by hand")
    said = run("photos", "--out", "mine", model=segmenter, code=2)
    assert "--out mine: contains 'masks', which carb did not write" in said
    assert files(Path("mine")) == {"masks/a.png": b"drawn by hand"}


def test_a_kill_between_two_files_is_no_one_else_s_work(segmenter: Path) -> None:
    run("photos", "--out", "o", model=segmenter)
    Path("o/overlays/b.png").unlink()  # as if the kill had come before it was moved
    with Path("o", LIST).open("a") as handle:
        handle.write('{"item": "photo c", "fi')
    assert "3 of 4 are finished" in run("photos", "--out", "o", model=segmenter)
    assert "overlays/b.png" in files()


def figures(out: str = "o") -> dict[str, object]:
    return json.loads(Path(out, "metrics.json").read_text())


def test_figures_of_a_resumed_run_are_those_of_one_that_was_not_stopped(segmenter: Path) -> None:
    scored = ["--images", "photos", "--masks", "human"]
    said = run(*scored, "--out", "whole", model=segmenter, app=evaluate.app)
    assert "see whole/metrics.json" in said
    photo = Path("photos/b.png").read_bytes()
    damage(Path("photos/b.png"))
    said = run(*scored, "--out", "o", model=segmenter, app=evaluate.app, code=2)
    assert "photos/b.png" in said
    protocol = figures()["protocol"]
    assert (protocol["photos"], protocol["left out"]) == (3, ["b.png"])
    Path("photos/b.png").write_bytes(photo)
    run(*scored, "--out", "o", model=segmenter, app=evaluate.app)
    assert files() == files(Path("whole"))


def test_a_damaged_mask_is_left_out_too(segmenter: Path) -> None:
    damage(Path("human/d.png"))
    scored = ["--images", "photos", "--masks", "human", "--out", "o"]
    said = run(*scored, model=segmenter, app=evaluate.app, code=2)
    assert "human/d.png: not readable as a mask" in said
    assert figures()["protocol"]["photos"] == 3
    first = figures()
    run(*scored, model=segmenter, app=evaluate.app, code=2)  # finished photos are scored again
    assert figures() == first


def test_the_current_folder_and_several_sources(
    segmenter: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    film(Path("ride.mp4"), size=(64, 96), rate=Fraction(5))
    Path("here").mkdir()
    monkeypatch.chdir("here")
    sources = ["../photos/a.png", "../photos/b.png", "../ride.mp4"]
    for _ in range(2):
        said = run(*sources, "--out", ".", model=segmenter)
        assert "0/0" not in said
    assert {"masks/a.png", "overlays/b.png", "overlays/ride.mp4"} <= {*files(Path())}
    assert "0/0" not in run("../ride.mp4", "--out", "../alone", model=segmenter)
    scored = ["--images", "../photos", "--masks", "../human", "--out", "."]
    assert "all of it is replaced" in run(*scored, model=segmenter, app=evaluate.app)
    assert "overlays/ride.mp4" not in files(Path())


@pytest.mark.parametrize("length", [244, 251])
def test_names_of_photos_may_be_as_long_as_the_disk_takes(length: int, segmenter: Path) -> None:
    name = "x" * length
    scene(40, 30).save(f"photos/{name}.png")
    run(f"photos/{name}.png", "--out", "o", model=segmenter)
    assert f"masks/{name}.png" in files()
