"""Predicting photos, folders and videos from the command line."""

import struct
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from pipeline.deploy.video import frames_of, probe_video
from pipeline.report.drawing import palette_of
from pipeline.segmenter.saved import load_segmenter
from stages import eval as evaluate
from stages import predict
from tests.helpers.small_photos import SPACE, film, random_segmenter, scene

QUARTER_TURN = struct.pack(">9i", 0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
BEFORE_MATRIX = 44  # bytes from a track header's name to its matrix: ISO/IEC 14496-12, 8.3.2


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory) -> Path:
    return random_segmenter(tmp_path_factory.mktemp("model") / "segmenter")


def opened(path: Path) -> Image.Image:
    """A picture whose file is closed again."""
    with Image.open(path) as picture:
        picture.load()
        return picture


def run(*arguments: str | Path, app=predict.app) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_photo_gives_mask_overlay_confidence_and_legend(segmenter, tmp_path) -> None:
    photo = scene(101, 67)
    photo.save(tmp_path / "street.png")
    out = tmp_path / "answers"
    done = run(tmp_path / "street.png", "--model", segmenter, "--out", out)
    assert done.exit_code == 0, done.output
    mask = opened(out / "masks/street.png")
    assert np.array_equal(np.asarray(mask), load_segmenter(segmenter)(photo))
    assert mask.getpalette()[:33] == SPACE.palette.ravel().tolist()
    sure = opened(out / "confidence/street.png")
    assert (sure.mode, sure.size) == ("L", (101, 67))
    assert np.asarray(sure).min() >= 255 // 11  # of 11 classes, the likeliest has its share
    assert opened(out / "overlays/street.png").size == (101, 67)
    assert (out / "legend.png").is_file()


def test_a_folder_gives_what_eval_gives_for_it(segmenter, tmp_path) -> None:
    photos = tmp_path / "photos"
    (photos / "town").mkdir(parents=True)
    scene(96, 64).save(photos / "a.png")
    scene(80, 48, 1).save(photos / "town/b.jpg")
    for name, app, arguments in (
        ("predicted", predict.app, [photos]),
        ("evaluated", evaluate.app, ["--images", photos]),
    ):
        more = ["--model", segmenter, "--out", tmp_path / name, "--scale", "0.5", "--flip"]
        done = run(*arguments, *more, app=app)
        assert done.exit_code == 0, done.output
    for name in ("masks/a.png", "masks/town/b.png", "overlays/a.png", "overlays/town/b.png"):
        ours, theirs = (tmp_path / each / name for each in ("predicted", "evaluated"))
        assert ours.read_bytes() == theirs.read_bytes()


def test_the_palette_for_colour_blind_people_colours_the_masks(segmenter, tmp_path) -> None:
    scene(96, 64).save(tmp_path / "a.png")
    out = tmp_path / "answers"
    done = run(tmp_path / "a.png", "--model", segmenter, "--out", out, "--palette", "colour_blind")
    assert done.exit_code == 0, done.output
    wanted = palette_of("colour_blind", SPACE.palette).ravel().tolist()
    assert opened(out / "masks/a.png").getpalette()[:33] == wanted


@pytest.mark.parametrize("ending", [".mp4", ".mov", ".avi", ".mkv"])
def test_a_video_keeps_its_size_rate_and_length(segmenter, tmp_path, ending) -> None:
    rate = Fraction(30000, 1001)
    source = film(tmp_path / f"ride{ending}", size=(65, 97), rate=rate)
    out = tmp_path / "answers"
    done = run(source, "--model", segmenter, "--out", out, "--frames")
    assert done.exit_code == 0, done.output
    made = probe_video(out / "overlays/ride.mp4")
    assert (made.size, made.sound) == ((65, 97), False)
    assert abs(made.rate / rate - 1) < 0.01
    assert len(list(frames_of(made))) == 5
    masks = sorted(path.name for path in (out / "masks/ride").iterdir())
    assert masks == [f"{number:06d}.png" for number in range(5)]


def test_a_phone_held_upright_gives_an_upright_overlay(segmenter, tmp_path) -> None:
    source = film(tmp_path / "phone.mp4", size=(64, 96), rate=Fraction(25))
    content = bytearray(source.read_bytes())
    place = content.index(b"tkhd") + BEFORE_MATRIX
    content[place : place + 36] = QUARTER_TURN
    source.write_bytes(content)
    first = next(frames_of(probe_video(source))).photo
    assert first.size == (64, 96)
    red = np.asarray(first)[2:20, 8:-8].reshape(-1, 3).mean(axis=0)  # left of the scene is up now
    assert red[0] > 150
    assert max(red[1:]) < 80
    done = run(source, "--model", segmenter, "--out", tmp_path / "answers")
    assert done.exit_code == 0, done.output
    assert probe_video(tmp_path / "answers/overlays/phone.mp4").size == (96, 64)


def bad_source(kind: str, folder: Path) -> tuple[Path, Path]:
    """A source that must be refused, and where its answers would go."""
    source, out = folder / kind, folder / "answers"
    if kind == "empty":
        source.mkdir()
    elif kind == "notes.txt":
        source.write_text("no photo")
    elif kind == "torn.jpg":
        source.write_bytes(b"\xff\xd8\xff\xe0 torn")
    elif kind == "noise.mp4":
        source.write_bytes(bytes(range(256)) * 40)
    elif kind == "inside":
        source.mkdir()
        scene(96, 64).save(source / "a.png")
        out = source
    return source, out


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("missing.png", "no such file or folder"),
        ("empty", "holds neither a photo"),
        ("notes.txt", "must be a photo"),
        ("torn.jpg", "torn.jpg"),
        ("noise.mp4", "not readable as a video"),
        ("inside", "would be replaced"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(segmenter, tmp_path, kind, words) -> None:
    source, out = bad_source(kind, tmp_path)
    done = run(source, "--model", segmenter, "--out", out)
    assert done.exit_code == 2, done.output
    assert words in " ".join(done.output.split())
    assert "Traceback" not in done.output
    assert not (tmp_path / "answers").exists()


def test_a_folder_of_another_kind_is_no_model(tmp_path) -> None:
    scene(96, 64).save(tmp_path / "a.png")
    done = run(tmp_path / "a.png", "--model", tmp_path, "--out", tmp_path / "answers")
    assert done.exit_code == 2
    assert "is not a segmenter of this pipeline" in " ".join(done.output.split())
