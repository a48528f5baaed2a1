"""Time and space of the stage `pseudo` on this machine, from a measured photo.

Weights are random, because speed does not depend on them: nothing needs to be downloaded first.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import open_clip
import torch
from PIL import Image

from pipeline.clip.dense import DenseClip, check_supported, load_clip
from pipeline.clip.levels import fused_grid, fused_logits, level_grid
from pipeline.clip.weights import hub_files
from pipeline.clip.windows import exposed, magnified, window_batches
from pipeline.config.clip import ClipParams, LevelParams
from pipeline.planning.memory import PEAK, process_bytes
from pipeline.scenes.image_io import read_image
from pipeline.store.plan import FUSED, Grid
from pipeline.system.hub import cached
from pipeline.views import cover

if TYPE_CHECKING:
    from lightning_fabric import Fabric

LONG_S = 2.0  # a measurement that takes longer is not repeated


@dataclass(frozen=True)
class Measured:
    """Seconds per item, how they were measured, and the peak memory in bytes, if known."""

    seconds: float
    how: str
    memory: int | None = None


def clock(fabric: "Fabric") -> float:
    """Time when the device has finished."""
    if fabric.device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


def grids_of(size: tuple[int, int], params: ClipParams, patch_size: int) -> dict[str, Grid]:
    """The grid of a photo at each level of the store."""
    grids = {name: level_grid(size, one, patch_size) for name, one in params.levels.items()}
    return grids | ({FUSED: fused_grid(size, params.fused)} if params.fused else {})


def store_bytes(
    sizes: Sequence[tuple[int, int]], count: int, classes: int, params: ClipParams, patch_size: int
) -> int:
    """Bytes of the store before compression, from the sizes of some of its photos."""
    cells = sum(
        rows * columns
        for size in sizes
        for rows, columns in grids_of(size, params, patch_size).values()
    )
    return 2 * classes * cells * count // len(sizes)


def clip_for_timing(params: ClipParams) -> DenseClip:
    """The CLIP of params.yaml; one of open_clip's registry with random weights.

    Raises:
        ValueError: it is not supported, not readable, or on the hub and not yet downloaded.
    """
    if params.pretrained is None:
        if missing := [file for file in hub_files(params.model, None) if cached(file) is None]:
            raise ValueError(f"params.yaml: clip.model: {missing[0]} is missing; run `carb fetch`")
        return load_clip(params.model, None, dense=params.dense)
    config = open_clip.get_model_config(params.model)
    check_supported(params.model, config["vision_cfg"])
    with torch.random.fork_rng(devices=[]):
        model = open_clip.create_model(params.model)
    tokenizer = open_clip.SimpleTokenizer()  # not used: the text is random, too
    return DenseClip(model, tokenizer, name=params.model, config=config)


def measure_clip(
    fabric: "Fabric", clip: DenseClip, params: ClipParams, photo: Path, classes: int
) -> Measured:
    """Seconds that CLIP takes for a photo: some windows of each level, times their number."""
    clip.to(fabric.device)
    text = torch.randn(classes, int(clip.config["embed_dim"]), device=fabric.device)
    start = time.perf_counter()
    image = exposed(read_image(photo), params.brightness)
    total, tried, windows = time.perf_counter() - start, 0, 0
    for level in params.levels.values():
        seconds, some, boxes = _measure_level(fabric, clip, level, image, text)
        total, tried, windows = total + seconds, tried + some, windows + boxes
    if params.fused is not None:
        size = (image.height, image.width)
        grids = [
            torch.randn(classes, *level_grid(size, level, clip.patch_size), device=fabric.device)
            for level in params.levels.values()
        ]
        start = clock(fabric)
        fused_logits(image, grids, params.fused)
        total += clock(fabric) - start
    of = f"{tried} of its {windows} windows" if tried < windows else f"its {windows} windows"
    how = f"{of} ({photo.name}, {image.width}x{image.height})"
    return Measured(total, how, process_bytes(PEAK))


@torch.no_grad()
def _measure_level(
    fabric: "Fabric", clip: DenseClip, level: LevelParams, image: Image.Image, text: torch.Tensor
) -> tuple[float, int, int]:
    """Seconds of a level, the number of windows measured, and of all windows."""
    start, patch = clock(fabric), clip.patch_size
    pixels = magnified(image, level, patch_size=patch)
    height, width = pixels.shape[:2]
    boxes = cover((height, width), window=level.window, overlap=level.overlap, patch_size=patch)
    read_s, windows = clock(fabric) - start, torch.empty(0)
    for count in (1, len(boxes)):  # the first run also warms up
        windows = next(window_batches(pixels.to(fabric.device), boxes[:count], clip))
        start = clock(fabric)
        with fabric.autocast():
            clip.patch_logits(windows, text)
        seconds = clock(fabric) - start
        if seconds * min(len(boxes), 8) > LONG_S:
            break
    return read_s + seconds / len(windows) * len(boxes), len(windows), len(boxes)
