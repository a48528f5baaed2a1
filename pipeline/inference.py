"""What a trained segmenter says of whole photos, of any size."""

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageOps
from torch import Tensor

from pipeline.segmenter import Segmenter
from pipeline.views import blend, cover

WINDOW_OVERLAP = 1 / 3  # as mmsegmentation's usual stride of two thirds of a window


@dataclass(frozen=True)
class Presentation:
    """How a photo is shown at test time; as it stands: whole, once.

    Attributes:
        scales: magnifications of the size that photos are fitted into.
        flip: show each scale mirrored, too.
        window: ``(height, width)`` in pixels of windows that a scale is shown through, whole
            strides of the network; None: whole.
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = False
    window: tuple[int, int] | None = None

    def in_words(self) -> str:
        """What a reader of the figures must know."""
        if self == Presentation():
            return "none"
        words = [f"scales {', '.join(f'{scale:g}' for scale in self.scales)}"]
        words.append("also mirrored" if self.flip else "not mirrored")
        if self.window is not None:
            height, width = self.window
            words.append(f"windows of {height}x{width}, logits averaged where they overlap")
        if self.flip or len(self.scales) > 1:
            words.append("mean of the probabilities")
        return "; ".join(words)


WHOLE = Presentation()


def input_size(
    image_size: tuple[int, int], *, base_size: tuple[int, int], stride: int
) -> tuple[int, int]:
    """Size at which a photo is shown to the network: fitted into ``base_size``, whole strides.

    Args:
        image_size: ``(height, width)`` of the photo.
        base_size: ``(height, width)`` that photos are fitted into, as in training.
        stride: the network takes multiples of it.
    """
    fit = min(base / side for base, side in zip(base_size, image_size, strict=True))
    height, width = (max(1, round(side * fit / stride)) * stride for side in image_size)
    return height, width


@torch.no_grad()
def predict_logits(
    segmenter: Segmenter,
    image: Image.Image,
    size: tuple[int, int],
    presentation: Presentation = WHOLE,
) -> Tensor:
    """Scores of a photo; nobody tells the network what is in it.

    Args:
        segmenter: the model with its normalisation.
        image: the photo, RGB.
        size: ``(height, width)`` that the logits are upsampled to (bilinear): the mask's.
        presentation: scales, flips and windows. Of several views the probabilities are averaged, as
            mmsegmentation does, and their logarithm given.

    Returns:
        ``[C, H, W]`` float32, on the model's device.

    Raises:
        ValueError: the windows are not whole strides of the network.
    """
    views = len(presentation.scales) * (1 + presentation.flip)
    probs: Tensor | None = None
    for scale in presentation.scales:
        height, width = (round(side * scale) for side in segmenter.base_size)
        shown = input_size(
            (image.height, image.width), base_size=(height, width), stride=segmenter.stride
        )
        resized = image.resize((shown[1], shown[0]), Image.Resampling.BILINEAR)
        for flipped in (False, True)[: 1 + presentation.flip]:
            logits = _scores(
                segmenter, ImageOps.mirror(resized) if flipped else resized, presentation
            )
            logits = logits.flip(-1) if flipped else logits
            logits = F.interpolate(logits, size, mode="bilinear", align_corners=False)[0]
            if views == 1:
                return logits
            share = logits.softmax(dim=0) / views
            probs = share if probs is None else probs + share
    assert probs is not None
    return probs.log()


def _scores(segmenter: Segmenter, image: Image.Image, presentation: Presentation) -> Tensor:
    """Logits of a photo of the network's size, whole or through windows: ``[1, C, h, w]``."""
    device = next(segmenter.model.parameters()).device
    pixels = torch.from_numpy(np.array(image)).to(device).permute(2, 0, 1)[None].float() / 255
    mean, std = (
        torch.tensor(value, device=device)[:, None, None]
        for value in (segmenter.mean, segmenter.std)
    )
    pixels = ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)
    if presentation.window is None:
        whole: Tensor = segmenter.model(pixels).float()
        return whole
    if any(side % segmenter.stride for side in presentation.window):
        raise ValueError(
            "params.yaml: eval.window (--window) must be multiples of the network's stride "
            f"{segmenter.stride}, got {list(presentation.window)}"
        )
    full = (image.height, image.width)
    boxes = cover(
        full, window=presentation.window, overlap=WINDOW_OVERLAP, patch_size=segmenter.stride
    )
    parts = []
    for box in boxes:
        top, left, height, width = (int(edge) for edge in box)
        logits = segmenter.model(pixels[..., top : top + height, left : left + width]).float()
        parts.append(F.interpolate(logits, (height, width), mode="bilinear")[0])
    return blend(torch.stack(parts), boxes, size=full)[None]


def predict_mask(
    segmenter: Segmenter,
    image: Image.Image,
    size: tuple[int, int],
    presentation: Presentation = WHOLE,
) -> np.ndarray:
    """The most likely class of each pixel, ``[H, W]`` uint8; see `predict_logits`."""
    logits = predict_logits(segmenter, image, size, presentation)
    mask: np.ndarray = logits.argmax(dim=0).cpu().numpy()
    return mask.astype(np.uint8)
