"""A small random segmenter, and images and videos for it."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image

from pipeline.scenes.classes import LABEL_SPACES, LabelSpace
from pipeline.segmenter.network import build_segmenter
from pipeline.segmenter.saved import save_segmenter

SPACE = LABEL_SPACES["camvid"]


def random_segmenter(
    folder: Path,
    seed: int = 3,
    *,
    arch: str = "unet",
    encoder: str = "resnet18",
    options: dict[str, object] | None = None,
    space: LabelSpace = SPACE,
    extra: dict[str, object] | None = None,
) -> Path:
    """Write an untrained segmenter."""
    torch.manual_seed(seed)
    small = {"decoder_channels": [16, 16, 8, 8, 4]} if arch == "unet" else {}
    model = build_segmenter(
        arch=arch,
        encoder=encoder,
        num_classes=len(space.names),
        options=small if options is None else options,
        text=None,
    )
    with torch.no_grad():
        model.train()(torch.rand(2, 3, 64, 96))
    save_segmenter(
        folder,
        model.eval(),
        classes=space.names,
        palette=space.palette,
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        base_size=(64, 96),
        extra=extra or {"dataset": "folder"},
    )
    return folder


def scene(width: int, height: int, seed: int = 0) -> Image.Image:
    """Blocks of colour, red on the left."""
    blocks = np.random.default_rng(seed).integers(0, 200, (3, 4, 3), np.uint8)
    blocks[:, 0] = (220, 20, 20)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.NEAREST)


def film(path: Path, *, size: tuple[int, int], rate: Fraction, frames: int = 5) -> Path:
    """A video with a sound track."""
    height, width = size
    with av.open(str(path), "w") as file:
        stream = file.add_stream("libx264", rate=rate, options={"crf": "10"})
        sound = file.add_stream("mp3" if path.suffix == ".avi" else "aac", rate=44100)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv444p"
        for _ in range(frames):
            file.mux(stream.encode(av.VideoFrame.from_image(scene(width, height))))
        file.mux(stream.encode())
        silence = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), "fltp", "mono")
        silence.sample_rate = 44100
        file.mux(sound.encode(silence))
        file.mux(sound.encode())
    return path
