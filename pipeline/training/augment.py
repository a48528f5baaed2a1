"""Photometric augmentation of crops, and normalisation of images for the encoder."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from pipeline.config.segmenter import NormalisationParams
from pipeline.config.views import AugmentParams

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
Channels = tuple[float, float, float]


class Normalisation(NamedTuple):
    """How an encoder expects its images: ``(RGB in 0..1 - mean) / std`` per channel."""

    mean: Channels
    std: Channels


IMAGENET = Normalisation(IMAGENET_MEAN, IMAGENET_STD)
NORMALISATIONS = {
    "imagenet": IMAGENET,
    "half": Normalisation((0.5,) * 3, (0.5,) * 3),  # many of timm's
    "lite": Normalisation((127 / 255,) * 3, (128 / 255,) * 3),  # EfficientNet-Lite: (x - 127) / 128
}


def normalisation_of(asked: str | NormalisationParams) -> Normalisation:
    """Mean and standard deviation of ``segmenter.normalisation``, a name or the values."""
    if isinstance(asked, str):
        return NORMALISATIONS[asked]
    return Normalisation(asked.mean, asked.std)


def distort(image: Tensor, params: AugmentParams, *, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue of a crop.

    Args:
        image: ``[3, H, W]`` uint8 RGB.
        params: the style and the ranges.
        generator: source of randomness.

    Returns:
        ``[3, H, W]`` uint8.
    """
    if params.style == "mmseg":
        return _as_mmseg(image, params, torch.rand(9, generator=generator, dtype=torch.float64))
    shift, contrast, saturation, hue = (
        2 * torch.rand(4, generator=generator, dtype=torch.float64) - 1
    ).tolist()
    pixels = image.float() + 255 * params.brightness * shift
    pixels = tvf.adjust_contrast(pixels.clamp(0, 255) / 255, 1 + params.contrast * contrast)
    pixels = tvf.adjust_saturation(pixels, 1 + params.saturation * saturation)
    if params.hue > 0:
        pixels = tvf.adjust_hue(pixels, params.hue * hue)
    result: Tensor = (255 * pixels).round().to(torch.uint8)
    return result


def _as_mmseg(image: Tensor, params: AugmentParams, drawn: Tensor) -> Tensor:
    """mmsegmentation 0.x's ``PhotoMetricDistortion``, the authors': each change is applied with
    probability 0.5 and truncated to integers; contrast scales about black, before or after colour.

    Args:
        image: ``[3, H, W]`` uint8 RGB.
        params: the ranges.
        drawn: ``[9]`` in [0, 1): for brightness, contrast, saturation and hue whether it changes
            (below 0.5) and by how much; then whether contrast comes first (0.5 or more).
    """
    on = (drawn[0:8:2] < 0.5).tolist()
    at = (2 * drawn[1:8:2] - 1).tolist()
    steps = round(180 * params.hue)  # of OpenCV's 180 for a full turn
    turn = int(drawn[7] * 2 * steps) - steps  # -steps .. steps - 1, as numpy's randint
    factor = 1 + params.contrast * at[1] if on[1] else 1.0
    if on[0]:
        image = _scaled(image, shift=255 * params.brightness * at[0])
    if drawn[8] >= 0.5:
        image = _scaled(image, factor)
    if on[2]:
        hue, saturation, value = _to_hsv(image)
        image = _to_rgb(hue, _scaled(saturation, 1 + params.saturation * at[2]), value)
    if on[3]:
        hue, saturation, value = _to_hsv(image)
        image = _to_rgb((hue + turn) % 180, saturation, value)
    return image if drawn[8] >= 0.5 else _scaled(image, factor)


def _scaled(pixels: Tensor, factor: float = 1.0, *, shift: float = 0.0) -> Tensor:
    """``pixels * factor + shift``, clipped to 0..255 and truncated to uint8."""
    return (pixels.float() * factor + shift).clamp(0, 255).to(torch.uint8)


def _to_hsv(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """OpenCV's 8-bit hue (0 to 179), saturation and value of ``[3, H, W]`` uint8 RGB, ``[H, W]``
    int32 each, in its integer arithmetic (``color_hsv``)."""
    red, green, blue = image.int().unbind()
    value = torch.maximum(torch.maximum(red, green), blue)
    spread = value - torch.minimum(torch.minimum(red, green), blue)
    by = torch.arange(256, dtype=torch.float64).clamp_min(1)  # a divisor of 0 divides 0
    per_value, per_spread = (255 * 4096 / by).round().int(), (30 * 4096 / by).round().int()
    saturation = (spread * per_value[value] + 2048) >> 12
    from_green, from_blue = blue - red + 2 * spread, red - green + 4 * spread
    sixths = torch.where(value == green, from_green, from_blue)
    sixths = torch.where(value == red, green - blue, sixths)
    hue = (sixths * per_spread[spread] + 2048) >> 12
    return torch.where(hue < 0, hue + 180, hue), saturation, value


def _to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """``[3, H, W]`` uint8 RGB of OpenCV's 8-bit hue, saturation and value, ``[H, W]`` each.

    Truncated, as in OpenCV's vectorised code (which rounds the last pixels of a row).
    """
    sixths = hue.float() * (6 / 180)
    saturation, value = saturation * (1 / 255), value * (1 / 255)
    sector = sixths.floor()
    rest = sixths - sector
    levels = torch.stack(
        [
            value,
            value * (1 - saturation),
            value * (1 - saturation * rest),
            value * (1 - saturation * (1 - rest)),
        ]
    )
    return (levels.gather(0, _SECTORS[:, sector.long()]) * 255).to(torch.uint8)


# Which of the four levels red, green and blue take in each sixth of the circle.
_SECTORS = torch.tensor([[0, 2, 1, 1, 3, 0], [3, 0, 0, 2, 1, 1], [1, 1, 3, 0, 0, 2]])


def normalise(images: Tensor, normalisation: Normalisation = IMAGENET) -> Tensor:
    """``[B, 3, H, W]`` uint8 RGB as the encoder expects it: float32, channels last."""
    mean, std = (
        images.new_tensor(value, dtype=torch.float32)[:, None, None] for value in normalisation
    )
    pixels = images.contiguous(memory_format=torch.channels_last).float() / 255
    return (pixels - mean) / std
