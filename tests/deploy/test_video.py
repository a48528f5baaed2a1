"""Video files: every container format, rotated and mirrored frames, non-square pixels."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.deploy.video import DEMUXERS, VideoWriter, probe_video, read_frames

ONE = 1 << 16
CODECS = {".webm": "libvpx-vp9", ".mpg": "mpeg2video", ".wmv": "wmv2"}
WRITERS = {".mts": "mpegts", ".mpg": "mpeg", ".wmv": "asf"}
ENDINGS = (".mp4", ".mts", ".mkv", ".webm", ".mpg", ".avi", ".wmv")  # every demultiplexer
BEFORE_MATRIX = 44  # bytes from a track header's name to its matrix: ISO/IEC 14496-12, 8.3.2
# Matrix (a, b, c, d) of each way to show a frame, and the same done to an array.
SHOWN = {
    "as it is": ((1, 0, 0, 1), lambda pixels: pixels),
    "mirrored": ((-1, 0, 0, 1), lambda pixels: pixels[:, ::-1]),
    "upside down and mirrored": ((1, 0, 0, -1), lambda pixels: pixels[::-1]),
    "upside down": ((-1, 0, 0, -1), lambda pixels: pixels[::-1, ::-1]),
    "clockwise": ((0, 1, -1, 0), lambda pixels: np.rot90(pixels, -1)),
    "anticlockwise": ((0, -1, 1, 0), lambda pixels: np.rot90(pixels, 1)),
    "clockwise and mirrored": ((0, 1, 1, 0), lambda pixels: np.rot90(pixels, -1)[:, ::-1]),
    "anticlockwise and mirrored": ((0, -1, -1, 0), lambda pixels: np.rot90(pixels, 1)[:, ::-1]),
}


def corners() -> np.ndarray:
    """A frame whose quarters are red, green, blue and white, 64x96."""
    pixels = np.zeros((64, 96, 3), np.uint8)
    pixels[:32, :48], pixels[:32, 48:] = (220, 20, 20), (20, 220, 20)
    pixels[32:, :48], pixels[32:, 48:] = (20, 20, 220), (220, 220, 220)
    return pixels


def film(path: Path, frames: int = 5, aspect: Fraction = Fraction(1)) -> Path:
    """A video of equal frames."""
    kind = WRITERS.get(path.suffix.lower())
    with av.open(str(path), "w", format=kind) as file:
        codec = CODECS.get(path.suffix.lower(), "libx264")
        stream = file.add_stream(codec, rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for _ in range(frames):
            file.mux(stream.encode(av.VideoFrame.from_image(Image.fromarray(corners()))))
        file.mux(stream.encode())
    return path


def turned(path: Path, way: str, aspect: Fraction = Fraction(1)) -> Path:
    """An mp4 of one frame whose header says how to show it."""
    content = bytearray(film(path, 1, aspect).read_bytes())
    place = content.index(b"tkhd") + BEFORE_MATRIX
    a, b, c, d = (ONE * value for value in SHOWN[way][0])
    content[place : place + 36] = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(content)
    return path


def test_every_demultiplexer_is_tested() -> None:
    assert {DEMUXERS[ending] for ending in ENDINGS} == {*DEMUXERS.values()}


@pytest.mark.parametrize("ending", [*ENDINGS, ".MOV"])
def test_each_container_is_read_in_upper_or_lower_case(tmp_path: Path, ending: str) -> None:
    path = film(tmp_path / f"ride{ending.lower()}").rename(tmp_path / f"ride{ending}")
    video = probe_video(path)
    frames = list(read_frames(video))
    assert video.size == (64, 96)
    assert len(frames) == 5
    step_s = float((frames[-1].time - frames[0].time) * video.time_base) / 4
    assert step_s == pytest.approx(1 / 25, rel=0.03)


@pytest.mark.parametrize("way", SHOWN)
def test_a_frame_is_rotated_and_mirrored_by_its_matrix(tmp_path: Path, way: str) -> None:
    video = probe_video(turned(tmp_path / "phone.mp4", way))
    image = np.asarray(next(read_frames(video)).image).astype(int)
    assert video.size == image.shape[:2]
    wanted = SHOWN[way][1](corners())
    assert abs(image - wanted).mean() < 20  # a quarter in a wrong place: above 50


def test_a_copy_is_displayed_like_its_source(tmp_path: Path) -> None:
    video = probe_video(turned(tmp_path / "phone.mp4", "clockwise", Fraction(4, 3)))
    assert (video.size, video.pixel_aspect) == ((96, 64), Fraction(3, 4))
    with VideoWriter(tmp_path / "copy.mp4", video) as writer:
        for frame in read_frames(video):
            writer.add(np.asarray(frame.image), frame.time)
    copy = probe_video(tmp_path / "copy.mp4")
    assert (copy.size, copy.pixel_aspect) == (video.size, video.pixel_aspect)
    images = [np.asarray(next(read_frames(one)).image).astype(int) for one in (video, copy)]
    assert abs(images[0] - images[1]).mean() < 20
