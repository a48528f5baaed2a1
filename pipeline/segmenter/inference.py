"""A trained segmenter, and what it says of whole photos of any size."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn

from pipeline.guided_filter import guide_image, guided_filter
from pipeline.scenes.image_io import as_photo
from pipeline.system.command import prefetch_in_threads, stream_to_cpu
from pipeline.views import blend, cover, fitted_size

K = TypeVar("K")
M = TypeVar("M")
PIXELS_A_CALL = 2**18  # of photos shown together: 8 of the demo, 1 of Cityscapes
LEAST = torch.finfo(torch.float32).tiny  # the filter can go a little below 0
WINDOW_OVERLAP = 1 / 3  # as mmsegmentation's usual stride of two thirds of a window


@dataclass(frozen=True)
class Segmenter:
    """A trained segmenter with all that inference needs; call it with a photo.

    Attributes:
        model: normalised RGB ``[B, 3, H, W]`` float to logits ``[B, C, H, W]``; in eval mode.
        classes: class names, by index.
        palette: ``[C, 3]`` uint8 RGB.
        mean: subtracted from RGB in 0..1.
        std: divides what is left.
        base_size: ``(height, width)`` in pixels that whole photos are fitted into.
        stride: height and width of the input must be multiples of it.
        extra: what else the training wrote down.
        digest: SHA-256 of the weights' file; empty where it is not known.
    """

    model: nn.Module
    classes: list[str]
    palette: npt.NDArray[np.uint8]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    base_size: tuple[int, int]
    stride: int
    extra: dict[str, Any]
    digest: str = ""

    def __call__(
        self, image: str | Path | Image.Image | npt.NDArray[np.uint8]
    ) -> npt.NDArray[np.uint8]:
        """The most likely class of each pixel of a photo, shown whole and once.

        Args:
            image: a file, a Pillow picture, or ``[H, W, 3]`` uint8 RGB; EXIF is respected.

        Returns:
            ``[H, W]`` uint8, of the upright photo's size.
        """
        photo = as_photo(image)
        return predict_mask(self, photo, (photo.height, photo.width))


@dataclass(frozen=True)
class TestTimeOptions:
    """How a photo is shown at test time; as it stands: whole, once.

    Attributes:
        scales: magnifications of the size that photos are fitted into.
        flip: show each scale mirrored, too.
        window: ``(height, width)`` in pixels of windows that a scale is shown through, whole
            strides of the network; None: whole.
        edge_radius: windows of the filter that lets the answer follow the photo's edges, in pixels
            of the size that photos are fitted into; None: no filter.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: tuple[int, int] | None = None
    edge_radius: int | None = None

    def in_words(self) -> str:
        """What a reader of the figures must know."""
        if self == TestTimeOptions():
            return "none"
        words = [f"scales {', '.join(f'{scale:g}' for scale in self.scales)}"]
        words.append("also mirrored" if self.flip else "not mirrored")
        if self.window is not None:
            height, width = self.window
            words.append(f"windows of {height}x{width}, logits averaged where they overlap")
        if self.flip or len(self.scales) > 1:
            words.append("mean of the probabilities")
        if self.edge_radius is not None:
            words.append(f"probabilities guided by the photo (radius {self.edge_radius} pixels)")
        return "; ".join(words)


WHOLE = TestTimeOptions()


def predict_logits(
    segmenter: Segmenter,
    image: Image.Image,
    size: tuple[int, int],
    presentation: TestTimeOptions = WHOLE,
) -> Tensor:
    """Scores of a photo, ``[C, H, W]``; see `predict_batch`."""
    return predict_batch(segmenter, [image], size, presentation)[0]


@torch.no_grad()
def predict_batch(
    segmenter: Segmenter,
    images: Sequence[Image.Image],
    size: tuple[int, int],
    presentation: TestTimeOptions = WHOLE,
) -> Tensor:
    """Scores of photos of one size; nobody tells the network what is in them.

    Args:
        segmenter: the model with its normalisation.
        images: the photos, RGB.
        size: ``(height, width)`` that the logits are upsampled to (bilinear): the mask's.
        presentation: how the photos are shown. Of several views the probabilities are averaged, as
            mmsegmentation does; these, and those that follow edges, are given as logarithms.

    Returns:
        ``[B, C, H, W]`` float32, on the model's device.

    Raises:
        ValueError: the windows are not whole strides of the network.
    """
    views = len(presentation.scales) * (1 + presentation.flip)
    radius, shape, probs = presentation.edge_radius, (images[0].height, images[0].width), None
    fitted = fitted_size(shape, base_size=segmenter.base_size, stride=segmenter.stride)
    together = size if radius is None else fitted  # where views meet
    for scale in presentation.scales:
        height, width = (round(side * scale) for side in segmenter.base_size)
        shown = fitted_size(shape, base_size=(height, width), stride=segmenter.stride)
        resized = [
            image.resize((shown[1], shown[0]), Image.Resampling.BILINEAR) for image in images
        ]
        for flipped in (False, True)[: 1 + presentation.flip]:
            seen = [ImageOps.mirror(image) for image in resized] if flipped else resized
            logits = _scores(segmenter, seen, presentation)
            logits = _resized(logits.flip(-1) if flipped else logits, together)
            if views == 1 and radius is None:
                return logits
            share = logits.softmax(dim=1) / views
            probs = share if probs is None else probs + share
    assert probs is not None
    if radius is not None:
        guides = [guide_image(image, fitted).to(probs.device) for image in images]
        pairs = zip(guides, probs, strict=True)
        followed = [guided_filter(guide, each, radius=radius) for guide, each in pairs]
        probs = _resized(torch.stack(followed), size)
    return probs.clamp_min(LEAST).log()


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """``[B, C, h, w]`` at another size."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def _scores(
    segmenter: Segmenter, images: Sequence[Image.Image], presentation: TestTimeOptions
) -> Tensor:
    """Logits of photos of the network's size, whole or through windows: ``[B, C, h, w]``."""
    device = next(segmenter.model.parameters()).device
    stacked = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    if device.type == "cuda":
        stacked = stacked.pin_memory().to(device, non_blocking=True)
    mean, std = (
        torch.tensor(value, device=device)[:, None, None]
        for value in (segmenter.mean, segmenter.std)
    )
    pixels = (stacked.permute(0, 3, 1, 2).float() / 255 - mean) / std
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    if presentation.window is None:
        whole: Tensor = segmenter.model(pixels).float()
        return whole
    if any(side % segmenter.stride for side in presentation.window):
        raise ValueError(
            "params.yaml: eval.window (--window) must be multiples of the network's stride "
            f"{segmenter.stride}, got {list(presentation.window)}"
        )
    full = (images[0].height, images[0].width)
    boxes = cover(
        full, window=presentation.window, overlap=WINDOW_OVERLAP, patch_size=segmenter.stride
    )
    parts = []
    for box in boxes:
        top, left, height, width = (int(edge) for edge in box)
        logits = segmenter.model(pixels[..., top : top + height, left : left + width]).float()
        parts.append(_resized(logits, (height, width)).flatten(0, 1))  # [B * C, H, W]
    return blend(torch.stack(parts), boxes, size=full).reshape(len(images), -1, *full)


def most_likely(logits: Tensor) -> Tensor:
    """The class of the highest score at each pixel, ``[C, H, W]`` -> ``[H, W]`` uint8."""
    return logits.max(dim=0).indices.to(torch.uint8)  # argmax(dim=0) is 6 times as slow on a CPU


def predict_mask(
    segmenter: Segmenter,
    image: Image.Image,
    size: tuple[int, int],
    presentation: TestTimeOptions = WHOLE,
) -> np.ndarray:
    """The most likely class of each pixel, ``[H, W]`` uint8; see `predict_logits`."""
    mask: np.ndarray = (
        most_likely(predict_logits(segmenter, image, size, presentation)).cpu().numpy()
    )
    return mask


def predict_many(
    segmenter: Segmenter,
    keys: Sequence[K],
    *,
    read: Callable[[K], tuple[Image.Image, M]],
    presentation: TestTimeOptions,
    more: Callable[[K, Tensor], list[Tensor]] = lambda key, logits: [],
) -> Iterator[tuple[K, Image.Image, M, np.ndarray]]:
    """The most likely classes of many photos, read ahead while the device is at work.

    Args:
        segmenter: the model with its normalisation.
        keys: what names the photos: paths, scenes, anything that ``read`` takes.
        read: gives a photo and what belongs to it; runs in threads.
        presentation: how the photos are shown.
        more: further maps ``[H, W]`` uint8 to bring along, made of a photo's logits.

    Yields:
        key, photo, what belongs to it, and ``[1 + maps, H, W]`` uint8, the classes first.
    """
    found = zip(keys, prefetch_in_threads(keys, read), strict=True)
    items = ((key, photo, beside) for key, (photo, beside) in found)
    return predict_stream(segmenter, items, presentation=presentation, more=more)


def predict_stream(
    segmenter: Segmenter,
    items: Iterable[tuple[K, Image.Image, M]],
    *,
    presentation: TestTimeOptions,
    more: Callable[[K, Tensor], list[Tensor]],
) -> Iterator[tuple[K, Image.Image, M, np.ndarray]]:
    """The most likely classes of photos as they come; few are held at a time.

    Photos of one size that follow each other are shown together; the last bits of a score may
    depend on how many they are. ``items`` are a key, a photo and what belongs to it; for the rest,
    see `predict_many`.
    """
    shown: deque[tuple[K, Image.Image, M]] = deque()  # to the device, not yet back

    def made() -> Iterator[Tensor]:
        network_pixels = math.prod(segmenter.base_size) * max(presentation.scales) ** 2
        for alike in _of_one_size(items, network_pixels):
            photos = [photo for _, photo, _ in alike]
            size = (photos[0].height, photos[0].width)
            shown.extend(alike)
            together = predict_batch(segmenter, photos, size, presentation)
            for (key, _, _), logits in zip(alike, together, strict=True):
                yield torch.stack([most_likely(logits), *more(key, logits)])

    for maps in stream_to_cpu(made()):
        yield *shown.popleft(), maps.numpy()


def _of_one_size(
    items: Iterable[tuple[K, Image.Image, M]], network_pixels: float
) -> Iterator[list[tuple[K, Image.Image, M]]]:
    """Split photos into runs of one size, each as long as memory allows.

    Args:
        items: the photos.
        network_pixels: as many as the network is shown of a photo.
    """
    for size, run in groupby(items, key=lambda item: item[1].size):
        count = max(1, int(PIXELS_A_CALL // max(network_pixels, math.prod(size))))
        while batch := list(islice(run, count)):
            yield batch
