"""What happens to the colours of a crop; where things are is the business of `views`."""

import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as tvf

from pipeline.config import AugmentParams

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def distort(image: Tensor, params: AugmentParams, *, generator: torch.Generator) -> Tensor:
    """Change brightness, contrast, saturation and hue, each by a factor drawn once for the crop.

    Args:
        image: ``[3, H, W]`` uint8 RGB.
        params: the ranges.
        generator: source of randomness.

    Returns:
        ``[3, H, W]`` uint8.
    """
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


def normalise(images: Tensor) -> Tensor:
    """Make crops what ImageNet encoders expect.

    Args:
        images: ``[B, 3, H, W]`` uint8 RGB.

    Returns:
        ``[B, 3, H, W]`` float32, channels last.
    """
    mean, std = (
        images.new_tensor(value, dtype=torch.float32)[:, None, None]
        for value in (IMAGENET_MEAN, IMAGENET_STD)
    )
    pixels = images.contiguous(memory_format=torch.channels_last).float() / 255
    return (pixels - mean) / std
