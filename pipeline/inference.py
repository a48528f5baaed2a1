"""What a trained segmenter says of whole photos, of any size."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from pipeline.segmenter import Segmenter


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
def predict_logits(segmenter: Segmenter, image: Image.Image, size: tuple[int, int]) -> Tensor:
    """Scores of a whole photo; nobody tells the network what is in it.

    Args:
        segmenter: the model with its normalisation.
        image: the photo, RGB.
        size: ``(height, width)`` that the logits are upsampled to (bilinear): the mask's.

    Returns:
        ``[C, H, W]`` float32, on the model's device.
    """
    shown = input_size(
        (image.height, image.width), base_size=segmenter.base_size, stride=segmenter.stride
    )
    resized = image.resize((shown[1], shown[0]), Image.Resampling.BILINEAR)
    device = next(segmenter.model.parameters()).device
    pixels = torch.from_numpy(np.array(resized)).to(device).permute(2, 0, 1)[None].float() / 255
    mean, std = (
        torch.tensor(value, device=device)[:, None, None]
        for value in (segmenter.mean, segmenter.std)
    )
    shown_pixels = ((pixels - mean) / std).contiguous(memory_format=torch.channels_last)
    logits: Tensor = segmenter.model(shown_pixels).float()
    return F.interpolate(logits, size, mode="bilinear", align_corners=False)[0]


def predict_mask(segmenter: Segmenter, image: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """The most likely class of each pixel, ``[H, W]`` uint8; see `predict_logits`."""
    mask: np.ndarray = predict_logits(segmenter, image, size).argmax(dim=0).cpu().numpy()
    return mask.astype(np.uint8)
