"""Videos as phones and cameras write them: each container that is named, turned or mirrored."""

import struct
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.deploy.video import DEMUXERS, read_frames, probe_video

ONE = 1 << 16
CODECS = {".webm": "libvpx-vp9", ".mpg": "mpeg2video", ".mpeg": "mpeg2video", ".wmv": "wmv2"}
WRITERS = {".m2ts": "mpegts", ".mts": "mpegts", ".mpeg": "mpeg", ".mpg": "mpeg", ".wmv": "asf"}
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


def film(path: Path, frames: int = 5) -> Path:
    """A video of equal frames."""
    kind = WRITERS.get(path.suffix.lower())
    with av.open(str(path), "w", format=kind) as file:
        codec = CODECS.get(path.suffix.lower(), "libx264")
        stream = file.add_stream(codec, rate=Fraction(25))
        stream.width, stream.height, stream.pix_fmt = 96, 64, "yuv420p"
        for _ in range(frames):
            file.mux(stream.encode(av.VideoFrame.from_image(Image.fromarray(corners()))))
        file.mux(stream.encode())
    return path


@pytest.mark.parametrize("ending", [*DEMUXERS, ".MOV", ".WebM"])
def test_each_container_is_read_in_any_capitals(tmp_path: Path, ending: str) -> None:
    path = film(tmp_path / f"ride{ending.lower()}").rename(tmp_path / f"ride{ending}")
    video = probe_video(path)
    frames = list(read_frames(video))
    assert video.size == (64, 96)
    assert len(frames) == 5
    step_s = float((frames[-1].time - frames[0].time) * video.tick) / 4
    assert step_s == pytest.approx(1 / 25, rel=0.03)


@pytest.mark.parametrize("way", SHOWN)
@pytest.mark.parametrize("ending", [".mp4", ".mov"])
def test_a_frame_is_turned_and_mirrored_as_the_file_says(
    tmp_path: Path, way: str, ending: str
) -> None:
    (a, b, c, d), wanted = SHOWN[way]
    path = film(tmp_path / f"phone{ending}", 1)
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + BEFORE_MATRIX
    matrix = (a * ONE, b * ONE, 0, c * ONE, d * ONE, 0, 0, 0, 1 << 30)
    content[place : place + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(content)
    video = probe_video(path)
    photo = np.asarray(next(read_frames(video)).photo).astype(int)
    assert video.size == photo.shape[:2]
    assert abs(photo - wanted(corners())).mean() < 20  # a quarter in a wrong place: above 50
