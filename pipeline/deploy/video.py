"""Video reading and writing with PyAV (FFmpeg): upright RGB frames with times, no sound."""

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from pipeline.scenes.image_io import LIMIT, max_pixels
from pipeline.system.text import error_text

# FFmpeg's demultiplexer by file ending. Others are refused: a playlist would start downloads.
DEMUXERS = {
    **dict.fromkeys((".3gp", ".m4v", ".mov", ".mp4"), "mov"),
    **dict.fromkeys((".m2ts", ".mts", ".ts"), "mpegts"),
    **dict.fromkeys((".mkv", ".webm"), "matroska"),
    **dict.fromkeys((".mpeg", ".mpg"), "mpeg"),
    ".avi": "avi",
    ".wmv": "asf",
}
VIDEO_ENDINGS = tuple(sorted(DEMUXERS))
BT709 = 1  # colour space of the output, its number in H.264
DEFAULT_RATE = Fraction(25)
ENCODER = {"crf": "20", "preset": "veryfast"}  # x264: visually close to the input


class VideoError(ValueError):
    """An unreadable video."""


class Video(NamedTuple):
    """A readable video file."""

    path: Path
    size: tuple[int, int]  # (height, width) in pixels of upright frames
    rate: Fraction  # average frames per second
    time_base: Fraction  # seconds per unit of the frames' times
    pixel_aspect: Fraction  # width over height of a displayed pixel
    num_frames: int  # frames according to the file, or an estimate
    sound: bool  # whether there is a sound track


class Frame(NamedTuple):
    """A frame of a video."""

    image: Image.Image  # upright, RGB
    time: int  # since the first frame, in units of time_base


def import_av() -> Any:
    """Import PyAV, an optional dependency; ValueError if it is not installed."""
    try:
        import av
    except ModuleNotFoundError:
        raise ValueError("videos need av: pip install -e '.[deploy]'") from None
    return av


def probe_video(path: Path) -> Video:
    """Read a video's properties and check that its first frame can be decoded.

    Raises:
        VideoError: the file is missing, damaged, not a video, or its frames are too large.
    """
    with _open_video(path) as (container, stream):
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > max_pixels():
            raise VideoError(
                f"{path}: has frames of {width}x{height} pixels, more than the limit of "
                f"{max_pixels()}; scale it down, or set {LIMIT}={width * height} if you trust it"
            )
        first = next(container.decode(stream), None)
        if first is None:
            raise VideoError(f"{path}: contains no frames; replace the file")
        image = _upright(first)
        rate = stream.average_rate or stream.guessed_rate or DEFAULT_RATE
        aspect = stream.sample_aspect_ratio or Fraction(1)
        duration_s = float((stream.duration or 0) * stream.time_base)
        duration_s = duration_s or (container.duration or 0) / import_av().time_base
        aspect = aspect if image.width == first.width else 1 / aspect
        num_frames = stream.frames or max(1, round(duration_s * rate))
        size, sound = (image.height, image.width), bool(container.streams.audio)
        return Video(path, size, rate, stream.time_base, aspect, num_frames, sound)


def read_frames(video: Video) -> Iterator[Frame]:
    """Decode the frames of a video one at a time.

    Raises:
        VideoError: the file is damaged, or the frame size changes.
    """
    step = max(1, round(1 / (video.rate * video.time_base)))
    untimed = video.path.suffix.lower() == ".avi"  # contains no times; FFmpeg guesses them
    with _open_video(video.path) as (container, stream):
        start, last = None, -step
        for number, frame in enumerate(container.decode(stream)):
            image = _upright(frame)
            if (image.height, image.width) != video.size:
                raise VideoError(
                    f"{video.path}: frame {number} has {image.width}x{image.height} pixels, the "
                    f"first has {video.size[1]}x{video.size[0]}; convert the video to one size"
                )
            start = frame.pts if start is None else start
            known = not untimed and frame.pts is not None and start is not None
            time = frame.pts - start if known else last + step
            last = max(time, last + 1)  # players need increasing times
            yield Frame(image, last)


@contextmanager
def _open_video(path: Path) -> Iterator[tuple[Any, Any]]:
    """A video file and its main stream; FFmpeg's errors become a `VideoError`."""
    av = import_av()
    if not path.is_file():
        raise VideoError(f"{path}: no such file; give the path of a video")
    try:
        with av.open(str(path), format=DEMUXERS[path.suffix.lower()]) as container:
            stream: Any = container.streams.best("video")
            if stream is None:
                raise VideoError(f"{path}: contains sound but no images; give a video")
            stream.thread_type = "AUTO"
            yield container, stream
    except av.FFmpegError as error:
        raise VideoError(
            f"{path}: not readable as a video ({error_text(error)}); replace the file, or convert "
            "it to .mp4"
        ) from None


def _upright(frame: Any) -> Image.Image:
    """A decoded frame as RGB, rotated and mirrored by its display matrix."""
    pixels: np.ndarray = frame.to_ndarray(format="rgb24")
    stored = frame.side_data.get("DISPLAYMATRIX")
    if stored is not None:
        # x' = a x + c y and y' = b x + d y, y pointing down: ISO/IEC 14496-12, 8.3.2.
        a, b, _, c, d, *_ = struct.unpack("=9i", bytes(stored)[:36])
        if abs(b) + abs(c) > abs(a) + abs(d):
            pixels, a, d = pixels.swapaxes(0, 1), c, b
        pixels = pixels[:: -1 if d < 0 else 1, :: -1 if a < 0 else 1]
    return Image.fromarray(np.ascontiguousarray(pixels))


class VideoWriter:
    """Context manager that writes an mp4 with the size, times and pixel aspect of another video.

    Colours are subsampled (4:2:0) only if both sides are even. Odd sizes need 4:4:4, which desktop
    players show but few browsers do.
    """

    def __init__(self, path: Path, like: Video) -> None:
        self._av, self._time_base = import_av(), like.time_base
        self._file = self._av.open(str(path), "w", format="mp4", options={"movflags": "faststart"})
        self._stream: Any = self._file.add_stream("libx264", rate=like.rate, options=ENCODER)
        codec = self._stream.codec_context
        self._stream.height, self._stream.width = like.size
        self._stream.pix_fmt = "yuv444p" if any(side % 2 for side in like.size) else "yuv420p"
        self._stream.time_base = codec.time_base = like.time_base
        codec.sample_aspect_ratio = like.pixel_aspect
        codec.colorspace = codec.color_primaries = codec.color_trc = BT709

    def __enter__(self) -> "VideoWriter":
        return self

    def __exit__(self, fault: type[BaseException] | None, *_: object) -> None:
        if fault is None:
            self._file.mux(self._stream.encode())
        self._file.close()

    def add(self, pixels: np.ndarray, time: int) -> None:
        """Append a frame, ``[H, W, 3]`` uint8 RGB, shown from ``time`` on."""
        frame = self._av.VideoFrame.from_ndarray(pixels, "rgb24")
        frame = frame.reformat(format=self._stream.pix_fmt, dst_colorspace=BT709)
        frame.pts, frame.time_base = time, self._time_base
        self._file.mux(self._stream.encode(frame))
