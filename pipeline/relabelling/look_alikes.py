"""Regions of classes that look alike, judged by CLIP as whole pictures.

A patch of a cyclist may be a pedestrian's; the whole figure is not. CLIP was trained on pictures:
shown a region cut out of its image it tells such classes apart better than patch by patch.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from scipy import ndimage
from torch import Tensor

from pipeline.clip.dense import DenseClip
from pipeline.clip.windows import exposed, normalised

SMALLEST = 8e-4  # share of the image; smaller regions are left as they are


class LookAlikes:
    """Judges regions; call it with an image and its logits.

    Args:
        clip: the frozen model.
        text: embedding of each class, ``[C, D]``.
        groups: indices of classes that look alike.
        brightness: see `exposed`.
    """

    def __init__(
        self,
        clip: DenseClip,
        text: Tensor,
        groups: Sequence[Sequence[int]],
        *,
        brightness: float | None,
    ) -> None:
        self._clip, self._text, self._groups = clip, text, groups
        self._brightness = brightness

    def __call__(self, logits: Tensor, image: Image.Image, present: Tensor) -> Tensor:
        """Logits after each connected region of a group was given to one class of it.

        In a region, the class that CLIP finds in its bounding box gets the largest logit of the
        group, and the others the smallest.

        Args:
            logits: ``[C, h, w]``, a grid that spans the image.
            image: RGB.
            present: the image-level labels, ``[C]`` bool.

        Returns:
            ``[C, h, w]``, a copy.
        """
        judged, seen = logits.clone(), exposed(image, self._brightness)
        mask = logits.masked_fill(~present[:, None, None], -torch.inf).max(dim=0).indices.numpy()
        for group in self._groups:
            known = [index for index in group if present[index]]
            regions = _regions(np.isin(mask, known)) if len(known) > 1 else []
            if not regions:
                continue
            pictures = [_cut(seen, box, mask.shape) for _, box in regions]
            found = self._most_likely(pictures, known)
            for (region, _), winner in zip(regions, found, strict=True):
                inside = judged[:, region]  # [C, n]
                best, worst = inside[known].max(dim=0).values, inside[known].min(dim=0).values
                for index in known:
                    judged[index, region] = best if index == winner else worst
        return judged

    @torch.no_grad()
    def _most_likely(self, pictures: list[Image.Image], classes: list[int]) -> list[int]:
        """The class of each picture, from it and its mirror image."""
        height, width = self._clip.image_size
        views = [
            view.resize((width, height), Image.Resampling.BICUBIC)
            for picture in pictures
            for view in (picture, ImageOps.mirror(picture))
        ]
        pixels = torch.from_numpy(np.stack([np.asarray(view) for view in views]))
        embedded = self._clip.embed_images(normalised(pixels.to(self._clip.device), self._clip))
        cosines = embedded @ self._text.to(self._clip.device).T
        mean = cosines.reshape(len(pictures), 2, -1).mean(dim=1)[:, classes]
        return [classes[index] for index in mean.argmax(dim=1).tolist()]


Region = tuple[np.ndarray, tuple[slice, slice]]


def _regions(inside: np.ndarray) -> list[Region]:
    """Connected regions, ``[h, w]`` bool each, and their bounding boxes."""
    labels, _ = ndimage.label(inside)
    boxes = ndimage.find_objects(labels)
    regions = [(labels == number, box) for number, box in enumerate(boxes, start=1)]
    return [(region, box) for region, box in regions if region.mean() >= SMALLEST]


def _cut(image: Image.Image, box: tuple[slice, slice], grid: tuple[int, ...]) -> Image.Image:
    """The part of an image under a box of grid cells."""
    down, across = image.height / grid[0], image.width / grid[1]
    rows, columns = box
    left, right = round(columns.start * across), round(columns.stop * across)
    top, bottom = round(rows.start * down), round(rows.stop * down)
    return image.crop((left, top, max(right, left + 1), max(bottom, top + 1)))
