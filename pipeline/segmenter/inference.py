"""Inference with a trained segmenter: whole images, test-time augmentation, batches."""

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor, nn

from pipeline.guided_filter import guide_image, guided_filter
from pipeline.scenes.image_io import as_photo
from pipeline.system.progress import stream_to_cpu
from pipeline.system.text import first_few
from pipeline.views import blend, cover, fitted_size

Photo = str | Path | Image.Image | npt.NDArray[np.uint8]
K = TypeVar("K")
M = TypeVar("M")
PIXELS_PER_CALL = 2**18  # of the images in one forward pass: 8 of the demo, 1 of Cityscapes
LEAST = torch.finfo(torch.float32).tiny  # filtered probabilities can be slightly negative
WINDOW_OVERLAP = 1 / 3  # as mmsegmentation's usual stride of two thirds of a window


@dataclass(frozen=True)
class Segmenter:
    """A trained segmenter with everything that inference needs; call it with a photo.

    Attributes:
        model: normalised RGB ``[B, 3, H, W]`` float to logits ``[B, C, H, W]``; in eval mode.
        classes: class names, by index.
        palette: ``[C, 3]`` uint8 RGB.
        mean: subtracted from RGB in 0..1.
        std: divides the difference.
        base_size: ``(height, width)`` in pixels that whole images are fitted into.
        stride: height and width of the network's input must be multiples of it.
        extra: settings and data of the training run.
        digest: SHA-256 of the weights file; empty if unknown.
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

    @overload
    def __call__(self, image: Tensor) -> Tensor: ...

    @overload
    def __call__(self, image: Photo) -> npt.NDArray[np.uint8]: ...

    def __call__(self, image: Photo | Tensor) -> npt.NDArray[np.uint8] | Tensor:
        """The most likely class of each pixel of a photo, or the logits of a batch.

        Args:
            image: a path, a Pillow image, or ``[H, W, 3]`` uint8 RGB; EXIF orientation is applied.
                Or a tensor ``[B, 3, H, W]``, RGB, uint8 or float in 0..1, both sides multiples of
                the stride; it is not resized.

        Returns:
            ``[H, W]`` uint8, the size of the upright photo. For a tensor ``[B, C, H, W]`` float32
            on the model's device; gradients flow unless the caller switches them off.

        Raises:
            ValueError: the photo is not readable, or the tensor has another shape or range.
        """
        if isinstance(image, Tensor):
            return self._logits(image)
        photo = as_photo(image)
        return predict_mask(self, photo, (photo.height, photo.width))

    def probabilities(self, photo: Photo) -> npt.NDArray[np.float32]:
        """The probability of each class at each pixel of a photo, not calibrated.

        Returns:
            ``[C, H, W]`` float32, the size of the upright photo; the sum over the classes is 1.
        """
        image = as_photo(photo)
        logits = predict_logits(self, [image], (image.height, image.width))[0]
        return np.asarray(logits.softmax(dim=0).cpu())

    def _logits(self, images: Tensor) -> Tensor:
        sides = images.shape[2:]
        if images.ndim != 4 or images.shape[1] != 3 or any(s % self.stride for s in sides):
            raise ValueError(
                f"images must be [B, 3, H, W], H and W multiples of {self.stride}, got "
                f"{list(images.shape)}; resize them, or pass photos one by one"
            )
        floating = images.is_floating_point()
        if not floating and images.dtype != torch.uint8:
            raise ValueError(f"images must be uint8 or float in 0..1, got {images.dtype}; convert")
        if floating and images.numel() and not 0 <= images.min() <= images.max() <= 1:
            raise ValueError(
                "float images must be in 0..1 and not normalised, which the segmenter does itself, "
                f"got {images.min():.3g}..{images.max():.3g}; pass uint8 or values of 0..1"
            )
        device = next(self.model.parameters()).device
        logits: Tensor = self.model(self.normalised(images.to(device))).float()
        return logits

    def normalised(self, images: Tensor) -> Tensor:
        """The network's input, ``[B, 3, H, W]``, from RGB, uint8 or float in 0..1."""
        mean = torch.tensor(self.mean, device=images.device)[:, None, None]
        std = torch.tensor(self.std, device=images.device)[:, None, None]
        share = images.float() / (1 if images.is_floating_point() else 255)
        return ((share - mean) / std).contiguous(memory_format=torch.channels_last)


@dataclass(frozen=True)
class TestTimeOptions:
    """Test-time augmentation; the default is a single pass over the whole image.

    Attributes:
        scales: factors of the base size.
        flip: also predict the mirror image at each scale.
        window: ``(height, width)`` in pixels of sliding windows, multiples of the network's stride;
            None: the whole image at once.
        edge_radius: radius of a guided filter along image edges, in pixels of the base size; None:
            no filter.
    """

    __test__ = False  # not a test case of pytest

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: tuple[int, int] | None = None
    edge_radius: int | None = None

    def describe(self) -> str:
        """A description for the evaluation protocol."""
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


NO_AUGMENTATION = TestTimeOptions()


@torch.no_grad()
def predict_logits(
    segmenter: Segmenter,
    images: Sequence[Image.Image],
    size: tuple[int, int],
    test_time: TestTimeOptions = NO_AUGMENTATION,
) -> Tensor:
    """Logits for images of equal size; no image-level labels are used.

    Args:
        segmenter: the model with its normalisation.
        images: RGB, all of one size.
        size: ``(height, width)`` that the logits are upsampled to (bilinear).
        test_time: several passes average their probabilities, as mmsegmentation does. Averaged or
            filtered probabilities are returned as logarithms.

    Returns:
        ``[B, C, H, W]`` float32, on the model's device.

    Raises:
        ValueError: the windows are not multiples of the network's stride.
    """
    passes = len(test_time.scales) * (1 + test_time.flip)
    radius, shape = test_time.edge_radius, (images[0].height, images[0].width)
    fitted = fitted_size(shape, base_size=segmenter.base_size, stride=segmenter.stride)
    common_size = size if radius is None else fitted  # at which passes are averaged
    probs = torch.zeros(())
    for scale in test_time.scales:
        base = (round(segmenter.base_size[0] * scale), round(segmenter.base_size[1] * scale))
        scaled = fitted_size(shape, base_size=base, stride=segmenter.stride)
        resized = [image.resize(scaled[::-1], Image.Resampling.BILINEAR) for image in images]
        for flipped in (False, True)[: 1 + test_time.flip]:
            inputs = [ImageOps.mirror(image) for image in resized] if flipped else resized
            logits = _run(segmenter, inputs, test_time.window)
            logits = _resized(logits.flip(-1) if flipped else logits, common_size)
            if passes == 1 and radius is None:
                return logits
            probs = probs.to(logits.device) + logits.softmax(dim=1) / passes
    if radius is not None:
        guides = [guide_image(image, fitted).to(probs.device) for image in images]
        pairs = zip(guides, probs, strict=True)
        filtered = [guided_filter(guide, each, radius=radius) for guide, each in pairs]
        probs = _resized(torch.stack(filtered), size)
    return probs.clamp_min(LEAST).log()


def ensemble_logits(
    segmenters: Sequence[Segmenter],
    images: Sequence[Image.Image],
    size: tuple[int, int],
    test_time: TestTimeOptions = NO_AUGMENTATION,
) -> Tensor:
    """Logarithms of the probabilities averaged over segmenters; see `predict_logits`.

    One segmenter gives its logits, unchanged.
    """
    if len(segmenters) == 1:
        return predict_logits(segmenters[0], images, size, test_time)
    logits = (predict_logits(one, images, size, test_time) for one in segmenters)
    probs = sum((each.softmax(dim=1) for each in logits), start=torch.zeros(()))
    return (probs / len(segmenters)).clamp_min(LEAST).log()


def check_ensemble(segmenters: Sequence[tuple[str, Segmenter]]) -> None:
    """Raise ValueError if segmenters, each with its name, cannot be averaged."""
    (first, wanted), *others = segmenters
    named = {wanted.digest: first}
    for name, segmenter in others:
        if segmenter.classes != wanted.classes:
            differ = sorted({*segmenter.classes} ^ {*wanted.classes})
            how = f"other classes ({first_few(differ)})" if differ else "another order of classes"
            raise ValueError(f"{name}: has {how} than {first}; name segmenters of equal classes")
        if other := segmenter.digest and named.get(segmenter.digest):
            raise ValueError(f"{name}: has the same weights as {other}; name each segmenter once")
        named[segmenter.digest] = name


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """``[B, C, h, w]`` to ``[B, C, *size]``, bilinear."""
    if tuple(maps.shape[-2:]) == size:
        return maps
    return F.interpolate(maps, size, mode="bilinear", align_corners=False)


def _run(
    segmenter: Segmenter, images: Sequence[Image.Image], window: tuple[int, int] | None
) -> Tensor:
    """Logits at the images' own size, in one pass or by sliding windows: ``[B, C, h, w]``."""
    device = next(segmenter.model.parameters()).device
    stacked = torch.from_numpy(np.stack([np.asarray(image) for image in images]))
    if device.type == "cuda":
        stacked = stacked.pin_memory().to(device, non_blocking=True)
    pixels = segmenter.normalised(stacked.permute(0, 3, 1, 2))
    if window is None:
        whole: Tensor = segmenter.model(pixels).float()
        return whole
    if any(side % segmenter.stride for side in window):
        raise ValueError(
            "params.yaml: eval.window (--window) must be multiples of the network's stride "
            f"{segmenter.stride}, got {list(window)}"
        )
    full = (images[0].height, images[0].width)
    boxes = cover(full, window=window, overlap=WINDOW_OVERLAP, patch_size=segmenter.stride)
    parts = []
    for box in boxes:
        top, left, height, width = (int(edge) for edge in box)
        logits = segmenter.model(pixels[..., top : top + height, left : left + width]).float()
        parts.append(_resized(logits, (height, width)).flatten(0, 1))  # [B * C, H, W]
    return blend(torch.stack(parts), boxes, size=full).reshape(len(images), -1, *full)


def most_likely(logits: Tensor) -> Tensor:
    """The class with the largest logit at each pixel, ``[C, H, W]`` to ``[H, W]`` uint8."""
    return logits.max(dim=0).indices.to(torch.uint8)  # argmax(dim=0) is 6 times slower on a CPU


def predict_mask(
    segmenter: Segmenter,
    image: Image.Image,
    size: tuple[int, int],
    test_time: TestTimeOptions = NO_AUGMENTATION,
) -> np.ndarray:
    """The most likely class of each pixel, ``[H, W]`` uint8; see `predict_logits`."""
    logits = predict_logits(segmenter, [image], size, test_time)[0]
    return np.asarray(most_likely(logits).cpu())


def predict_stream(
    segmenter: Segmenter,
    items: Iterable[tuple[K, Image.Image, M]],
    *,
    test_time: TestTimeOptions = NO_AUGMENTATION,
    ensemble: Sequence[Segmenter] = (),
    more: Callable[[K, Tensor], list[Tensor]] = lambda key, logits: [],
) -> Iterator[tuple[K, Image.Image, M, np.ndarray]]:
    """The most likely classes of many images, with only a few images in memory.

    Consecutive images of equal size share a forward pass; the last bits of a logit may depend on
    the batch size.

    Args:
        segmenter: the model with its normalisation.
        items: key, image, and any companion of the image.
        test_time: test-time augmentation.
        ensemble: further segmenters of the same classes, averaged with the first.
        more: makes further ``[H, W]`` uint8 maps from the key and logits of an image.

    Yields:
        key, image, companion, and ``[1 + further maps, H, W]`` uint8, the classes first.
    """
    pending: deque[tuple[K, Image.Image, M]] = deque()  # images whose maps are on the device

    segmenters = (segmenter, *ensemble)

    def maps() -> Iterator[Tensor]:
        largest = max(math.prod(one.base_size) for one in segmenters)
        network_pixels = largest * max(test_time.scales) ** 2
        for batch in _batches(items, network_pixels):
            images = [image for _, image, _ in batch]
            size = (images[0].height, images[0].width)
            pending.extend(batch)
            stacked = ensemble_logits(segmenters, images, size, test_time)
            for (key, _, _), logits in zip(batch, stacked, strict=True):
                yield torch.stack([most_likely(logits), *more(key, logits)])

    for each in stream_to_cpu(maps()):
        yield *pending.popleft(), each.numpy()


def _batches(
    items: Iterable[tuple[K, Image.Image, M]], network_pixels: float
) -> Iterator[list[tuple[K, Image.Image, M]]]:
    """Consecutive images of equal size, as many as ``PIXELS_PER_CALL`` allows."""
    for size, run in groupby(items, key=lambda item: item[1].size):
        count = max(1, int(PIXELS_PER_CALL // max(network_pixels, math.prod(size))))
        while batch := list(islice(run, count)):
            yield batch
