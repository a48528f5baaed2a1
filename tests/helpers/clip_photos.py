"""Small photos of noise, their index, and their logits computed window by window."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from pipeline.clip.dense import DenseClip
from pipeline.config.clip import LevelParams
from pipeline.scenes.classes import LABEL_SPACES
from pipeline.scenes.index import IndexedPhoto, SceneIndex
from pipeline.system.files import file_digest
from pipeline.views import cover

SPACE = LABEL_SPACES["camvid"]
TEMPLATES = ["a photo of a {}."]
LEVELS = {
    "global": LevelParams(zoom=1.0, window=(32, 32), overlap=0.5),
    "local": LevelParams(zoom=2.0, window=(64, 32), overlap=0.25),
}
SIZES = {"a": (32, 48), "b": (50, 40), "c": (32, 48), "d": (16, 60)}


def photo_of(name: str) -> Image.Image:
    """A photo of noise, smooth enough to survive magnification."""
    noise = np.random.default_rng(ord(name)).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    height, width = SIZES[name]
    return Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)


def index_of(root: Path, names: str) -> SceneIndex:
    """Write the photos under ``root`` and index them, in the order of ``names``."""
    photos = []
    for name in names:
        path = root / "train" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo_of(name).save(path)
        photos.append(
            IndexedPhoto(
                f"train/{name}", "train", f"train/{name}.png", SIZES[name], file_digest(path)
            )
        )
    return SceneIndex(SPACE, photos)


def cover_slowly(
    image: Image.Image, level: LevelParams, clip: DenseClip, text: torch.Tensor
) -> np.ndarray:
    """One window at a time, one cell at a time."""
    height, width = (max(1, round(side * level.zoom / 16)) for side in (image.height, image.width))
    resized = image.resize((16 * width, 16 * height), Image.Resampling.BICUBIC)
    pixels = (np.asarray(resized) / 255 - clip.mean) / clip.std  # [H, W, 3]
    found: dict[tuple[int, int], list[np.ndarray]] = {}
    size = (16 * height, 16 * width)
    for box in cover(size, window=level.window, overlap=level.overlap, patch_size=16):
        top, left, high, wide = (int(edge) for edge in box)
        window = torch.from_numpy(pixels[top : top + high, left : left + wide]).float()
        logits = clip.patch_logits(window.permute(2, 0, 1)[None], text)[0].numpy()
        for row, column in np.ndindex(*logits.shape[1:]):
            cell = (top // 16 + row, left // 16 + column)
            found.setdefault(cell, []).append(logits[:, row, column])
    blended = np.zeros((len(text), height, width))
    for (row, column), values in found.items():
        blended[:, row, column] = np.mean(values, axis=0)
    assert len(found) == height * width
    return blended
