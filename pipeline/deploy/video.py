"""Videos, frame by frame: read upright with their times, and written at the same size and rate.

PyAV holds FFmpeg's libraries, so that nothing else need be installed. Sound is not carried over.
"""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import av
import numpy as np
from av.video.reformatter import Colorspace
from PIL import Image

from pipeline.scenes.image_io import LIMIT, max_pixels
from pipeline.system.text import error_text

# FFmpeg's demultiplexer of each ending: a file of another kind, such as a list of addresses that
# FFmpeg would go and fetch, is refused.
DEMUXERS = {
    **dict.fromkeys((".3gp", ".m4v", ".mov", ".mp4"), "mov"),
    **dict.fromkeys((".m2ts", ".mts", ".ts"), "mpegts"),
    **dict.fromkeys((".mkv", ".webm"), "matroska"),
    **dict.fromkeys((".mpeg", ".mpg"), "mpeg"),
    ".avi": "avi",
    ".wmv": "asf",
}
VIDEO_ENDINGS = tuple(sorted(DEMUXERS))
BT709 = 1  # as H.264 numbers it
USUAL_RATE = Fraction(25)
QUALITY = {"crf": "20", "preset": "veryfast"}  # x264: close to what it encodes, and quick
# By whether the axes are exchanged, and whether x and y of the result run backwards.
TURNS = {
    (False, True, False): Image.Transpose.FLIP_LEFT_RIGHT,
    (False, False, True): Image.Transpose.FLIP_TOP_BOTTOM,
    (False, True, True): Image.Transpose.ROTATE_180,
    (True, False, False): Image.Transpose.TRANSPOSE,
    (True, True, False): Image.Transpose.ROTATE_270,
    (True, False, True): Image.Transpose.ROTATE_90,
    (True, True, True): Image.Transpose.TRANSVERSE,
}


@dataclass(frozen=True)
class Video:
    """A file that holds a video.

    Attributes:
        path: the file.
        size: ``(height, width)`` in pixels of the frames as they are shown, upright.
        rate: frames a second, on average.
        tick: seconds a unit of the frames' times.
        shape: width over height of a pixel as it is shown.
        count: frames that the file says it holds; roughly, where it does not say.
        sound: whether there is any.
    """

    path: Path
    size: tuple[int, int]
    rate: Fraction
    tick: Fraction
    shape: Fraction
    count: int
    sound: bool


class Frame(NamedTuple):
    """A frame, upright RGB, and when it is shown: ticks since the first one."""

    photo: Image.Image
    time: int


def probe_video(path: Path) -> Video:
    """Open a video and decode its first frame.

    Raises:
        ValueError: the file is missing, no video, damaged, or of too large frames.
    """
    with _opened(path) as (container, stream):
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > max_pixels():
            raise ValueError(
                f"{path}: has frames of {width}x{height} pixels, more than the limit of "
                f"{max_pixels()}; make them smaller, or set {LIMIT}={width * height} if you trust "
                "it"
            )
        first = next(container.decode(stream), None)
        if first is None:
            raise ValueError(f"{path}: holds no frame; replace the file")
        photo = _upright(first)
        rate = stream.average_rate or stream.guessed_rate or USUAL_RATE
        shape = stream.sample_aspect_ratio or Fraction(1)
        turned = photo.width != first.width
        length_s = float((stream.duration or 0) * stream.time_base) or (container.duration or 0) / (
            av.time_base
        )
        return Video(
            path=path,
            size=(photo.height, photo.width),
            rate=rate,
            tick=stream.time_base,
            shape=1 / shape if turned and shape else shape or Fraction(1),
            count=stream.frames or max(1, round(length_s * rate)),
            sound=bool(container.streams.audio),
        )


def frames_of(video: Video) -> Iterator[Frame]:
    """The frames of a video in order; only one is held.

    Raises:
        ValueError: the file is damaged, or a frame has another size than the first.
    """
    step = max(1, round(1 / (video.rate * video.tick)))
    steady = video.path.suffix.lower() == ".avi"  # it stores a rate only; FFmpeg guesses the times
    with _opened(video.path) as (container, stream):
        start, last = None, -step
        for number, frame in enumerate(container.decode(stream)):
            photo = _upright(frame)
            if (photo.height, photo.width) != video.size:
                raise ValueError(
                    f"{video.path}: frame {number} is of {photo.width}x{photo.height} pixels, the "
                    f"first of {video.size[1]}x{video.size[0]}; convert the video to one size"
                )
            start = frame.pts if start is None else start
            timeless = steady or frame.pts is None or start is None
            time = last + step if timeless else frame.pts - start
            last = time if time > last else last + 1  # times must grow, or no player takes them
            yield Frame(photo, last)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, Any]]:
    """A video file and its main stream; what FFmpeg cannot read is told in a sentence."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file; give the path of a video")
    try:
        with av.open(str(path), format=DEMUXERS[path.suffix.lower()]) as container:
            stream: Any = container.streams.best("video")
            if stream is None:
                raise ValueError(f"{path}: holds no pictures, only sound; give a video")
            stream.thread_type = "AUTO"
            yield container, stream
    except av.FFmpegError as error:
        raise ValueError(
            f"{path}: not readable as a video ({error_text(error)}); replace the file, or convert "
            "it "
            "to .mp4"
        ) from None


def _upright(frame: Any) -> Image.Image:
    """A decoded frame as it is shown, RGB: phones store how they were held, and cameras that look
    at their owner that they mirror, beside the frames."""
    photo: Image.Image = frame.to_image()
    stored = frame.side_data.get("DISPLAYMATRIX")
    if stored is None:
        return photo
    # x' = a x + c y and y' = b x + d y, y downwards: ISO/IEC 14496-12, 8.3.2.
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(stored)[:36])
    exchanged = abs(b) + abs(c) > abs(a) + abs(d)
    turn = TURNS.get((exchanged, (c if exchanged else a) < 0, (b if exchanged else d) < 0))
    return photo if turn is None else photo.transpose(turn)


class VideoWriter:
    """Writes an mp4 of another video's size, times and shape of pixels.

    H.264 stores colours at half the height and width, for even sizes; the others keep them whole,
    which all desktop players show, but few browsers.

    Args:
        path: the file to write.
        like: the other video.
    """

    def __init__(self, path: Path, like: Video) -> None:
        self._tick = like.tick
        self._file = av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        self._stream: Any = self._file.add_stream("libx264", rate=like.rate, options=QUALITY)
        even = not any(side % 2 for side in like.size)
        self._stream.height, self._stream.width = like.size
        self._stream.pix_fmt = "yuv420p" if even else "yuv444p"
        self._stream.time_base = self._stream.codec_context.time_base = like.tick
        self._stream.codec_context.sample_aspect_ratio = like.shape
        for name in ("colorspace", "color_primaries", "color_trc"):
            setattr(self._stream.codec_context, name, BT709)

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, fault: type[BaseException] | None, *_: object) -> None:
        if fault is None:
            self._file.mux(self._stream.encode())
        self._file.close()

    def add(self, picture: np.ndarray, time: int) -> None:
        """Write a frame, ``[H, W, 3]`` uint8 RGB, shown from so many ticks on."""
        frame = av.VideoFrame.from_ndarray(picture, "rgb24")
        frame = frame.reformat(format=self._stream.pix_fmt, dst_colorspace=Colorspace.ITU709)
        frame.pts, frame.time_base = time, self._tick
        self._file.mux(self._stream.encode(frame))
