"""Crops of drawn scenes with one caption each: training data of the demo's small CLIP.

The drawn masks determine the crops and the classes in the captions; training uses only images and
sentences, as CLIP's did.
"""

import functools
import math
import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from demo.captions import Vocabulary, write_caption
from demo.street import CLASSES, draw_scene

SCENE_SEED = 1000  # training scenes are drawn from seed 1000 + --seed, never from the demo's own

CLOSE_UP_PROBABILITY = 0.6
CLOSE_UP_TRIES = 5
# Sides in scene pixels. Windows of 64 px at zoom 1, 2 and 3 show 64, 32 and 21 scene pixels, so a
# close-up of a small class is about as magnified as pseudo-masks will see it.
SMALL_CLASS_SIDES = (12.0, 40.0)
LARGE_CLASS_SIDES = (14.0, 64.0)
WIDE_SIDES = (18.0, 128.0)
LARGE_CLASS_SHARE = 0.03  # of all pixels
MIN_PIXELS = 12  # area from which a class counts as visible in a scene
MIN_MENTIONED_SHARE = 0.025  # of the crop
SALIENCE_POWER = 0.4  # weight of rarity in salience
MIN_RELATIVE_SALIENCE = 0.2  # of the crop's most salient class
MENTION_WEIGHTS = (0.45, 0.35, 0.2)  # captions of one, two and three classes


class Crop(NamedTuple):
    """A region of a scene and the classes that its caption mentions.

    ``top, left, height, width`` are scene pixels, not rounded, ends excluded.
    """

    scene: int
    top: float
    left: float
    height: float
    width: float
    classes: tuple[int, ...]


class Batch(NamedTuple):
    """Crops and captions of one step; ``U`` distinct captions serve ``B`` crops.

    ``images`` [B, 3, S, S] float32, CLIP-normalised; ``mentioned`` [B, C] float32, 0 or 1;
    ``tokens`` [U, L] int64, compact; ``caption_of`` [B] int64, the row of ``tokens`` of each crop.
    """

    images: Tensor
    mentioned: Tensor
    tokens: Tensor
    caption_of: Tensor


class ScenePool:
    """Drawn scenes, indexed by the classes they show.

    Args:
        images: ``[N, H, W, 3]`` uint8.
        masks: ``[N, H, W]`` uint8, indices of ``CLASSES``.
    """

    def __init__(self, images: NDArray[np.uint8], masks: NDArray[np.uint8]) -> None:
        self.images, self.masks = images, masks
        area = np.stack([_class_areas(mask) for mask in masks])  # [N, C]
        self.share = area.sum(axis=0) / area.sum()  # [C]
        self._rarity = np.maximum(self.share, 1e-4) ** -SALIENCE_POWER
        self._scenes = [np.flatnonzero(column >= MIN_PIXELS) for column in area.T]
        self._odds = [np.cumsum(np.sqrt(area[scenes, k])) for k, scenes in enumerate(self._scenes)]
        self.subjects = [k for k, scenes in enumerate(self._scenes) if len(scenes)]

    def draw_crop(self, rng: random.Random) -> Crop:
        """Draw a subject (classes equally often), then a scene, a frame and the classes to mention.

        A close-up mentions its subject if visible; a wider crop mentions its most salient classes.
        """
        while True:
            subject = rng.choice(self.subjects)
            odds = self._odds[subject]
            scene = int(self._scenes[subject][np.searchsorted(odds, rng.random() * odds[-1])])
            is_close_up = rng.random() < CLOSE_UP_PROBABILITY
            tries = CLOSE_UP_TRIES if is_close_up else 1
            side = self._side(subject, is_close_up, rng)
            frames = self._frames(scene, subject, side, tries, rng)
            crops = [(frame, _class_areas(self._cut(scene, *frame))) for frame in frames]
            frame, area = max(crops, key=lambda crop: float(crop[1][subject] / crop[1].sum()))
            classes = self._mentioned(area, subject if is_close_up else None, rng)
            if classes:
                return Crop(scene, *frame, classes)

    def render(self, crop: Crop, size: int) -> NDArray[np.uint8]:
        """Pixels of ``crop`` resized to ``[size, size, 3]`` uint8 (bicubic, antialiased)."""
        edges = (crop.left, crop.top, crop.left + crop.width, crop.top + crop.height)
        image = Image.fromarray(self.images[crop.scene])
        return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, box=edges))

    def _side(self, subject: int, is_close_up: bool, rng: random.Random) -> float:
        is_large = self.share[subject] > LARGE_CLASS_SHARE
        close_up_sides = LARGE_CLASS_SIDES if is_large else SMALL_CLASS_SIDES
        low, high = close_up_sides if is_close_up else WIDE_SIDES
        return math.exp(rng.uniform(math.log(low), math.log(high)))

    def _frames(
        self, scene: int, subject: int, side: float, tries: int, rng: random.Random
    ) -> list[tuple[float, float, float, float]]:
        """``tries`` frames (top, left, height, width), each around a pixel of ``subject``."""
        mask = self.masks[scene]
        rows, columns = mask.shape
        pixels = np.flatnonzero(mask.ravel() == subject)
        frames = []
        for _ in range(tries):
            row, column = divmod(int(pixels[rng.randrange(len(pixels))]), columns)
            aspect = math.exp(rng.uniform(-0.35, 0.35))
            height, width = min(rows, side / aspect), min(columns, side * aspect)
            top = min(max(row - rng.uniform(0.2, 0.8) * height, 0), rows - height)
            left = min(max(column - rng.uniform(0.2, 0.8) * width, 0), columns - width)
            frames.append((top, left, height, width))
        return frames

    def _cut(
        self, scene: int, top: float, left: float, height: float, width: float
    ) -> NDArray[np.uint8]:
        bottom, right = math.ceil(top + height), math.ceil(left + width)
        return self.masks[scene, int(top) : bottom, int(left) : right]

    def _mentioned(
        self, area: NDArray[np.int64], subject: int | None, rng: random.Random
    ) -> tuple[int, ...]:
        """One to three classes by area and rarity; () if none is salient."""
        share = area / area.sum()
        visible = share > MIN_MENTIONED_SHARE
        salience = share * self._rarity * visible
        floor = MIN_RELATIVE_SALIENCE * salience.max()
        order = [int(k) for k in np.argsort(-salience) if salience[k] > floor]
        count = rng.choices((1, 2, 3), MENTION_WEIGHTS)[0]
        chosen = order[:count]
        if subject is not None and visible[subject] and subject not in chosen:
            chosen = [*chosen[: count - 1], subject]
        return tuple(sorted(chosen))


def _class_areas(mask: NDArray[np.uint8]) -> NDArray[np.int64]:
    return np.bincount(mask.ravel(), minlength=len(CLASSES))


def draw_pool(num_scenes: int, *, seed: int, processes: int) -> ScenePool:
    """Draw ``num_scenes`` scenes of the wide style, with ``processes`` processes."""
    draw = functools.partial(draw_scene, SCENE_SEED + seed, wide=True)
    if processes == 1:
        drawn = [draw(number) for number in range(num_scenes)]
    else:  # Forked workers would inherit our handler of SIGTERM and locks of other threads.
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(processes, spawn) as workers:
            drawn = list(workers.map(draw, range(num_scenes), chunksize=25))
    images, masks = zip(*drawn, strict=True)
    return ScenePool(np.stack(images), np.stack(masks).astype(np.uint8))


class CropBatches(Dataset[Batch]):
    """Batches of crops; each depends only on the seed and its step, so a run can be resumed."""

    def __init__(
        self, pool: ScenePool, vocabulary: Vocabulary, *, batch_size: int, size: int, seed: int
    ) -> None:
        self._pool, self._vocabulary = pool, vocabulary
        self._batch_size, self._size, self._seed = batch_size, size, seed

    def __getitem__(self, step: int) -> Batch:
        rng = random.Random(f"{self._seed} {step}")
        crops = [self._pool.draw_crop(rng) for _ in range(self._batch_size)]
        pixels = np.stack([self._pool.render(crop, self._size) for crop in crops])
        generator = torch.Generator().manual_seed(rng.getrandbits(63))
        images = augment(torch.from_numpy(pixels).permute(0, 3, 1, 2), generator=generator)
        mentioned = torch.zeros(len(crops), len(CLASSES))
        for row, crop in enumerate(crops):
            mentioned[row, list(crop.classes)] = 1
        tokens, caption_of = self._captions(crops, rng)
        return Batch(images, mentioned, tokens, caption_of)

    def _captions(self, crops: list[Crop], rng: random.Random) -> tuple[Tensor, Tensor]:
        """One caption per distinct set of classes, which halves the text tower's work; rows repeat
        to a multiple of 32, so that few shapes occur."""
        distinct = sorted({crop.classes for crop in crops})
        row_of = {classes: row for row, classes in enumerate(distinct)}
        captions = [write_caption([CLASSES[k] for k in classes], rng=rng) for classes in distinct]
        captions += captions[:1] * (-len(captions) % 32)
        caption_of = torch.tensor([row_of[crop.classes] for crop in crops])
        return self._vocabulary.encode(captions), caption_of


def augment(images: Tensor, *, generator: torch.Generator) -> Tensor:
    """Vary flip, gamma, brightness, white balance, saturation, contrast and noise; normalise.

    Args:
        images: ``[B, 3, H, W]`` uint8, RGB.
        generator: draws every factor, one for each image.

    Returns:
        ``[B, 3, H, W]`` float32 with CLIP's mean and standard deviation removed.
    """
    num, _, height, width = images.shape

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return torch.rand(num, *shape, generator=generator) * (high - low) + low

    flip = uniform(0, 1, 1, 1, 1) < 0.5
    levels = torch.where(flip, images.flip(-1), images).reshape(num, -1).long()
    gamma_table = torch.linspace(1e-4, 1, 256)[None].pow(uniform(-0.3, 0.3, 1).exp())  # [B, 256]
    pixels = gamma_table.gather(1, levels).view(num, 3, height * width)
    colour = torch.diag_embed(uniform(0.6, 1.3, 1) * uniform(0.88, 1.12, 3))  # [B, 3, 3]
    saturation = uniform(0.6, 1.4, 1, 1) * (uniform(0, 1, 1, 1) > 0.03)  # some are grey
    colour = (saturation * torch.eye(3) + (1 - saturation) / 3) @ colour
    contrast = uniform(0.75, 1.25, 1, 1)
    mean = (colour @ pixels.mean(dim=2, keepdim=True)).mean(dim=1, keepdim=True)  # [B, 1, 1]
    pixels = (contrast * colour @ pixels + (1 - contrast) * mean).clamp(0, 1)
    # One noise field for the batch, scaled per image.
    noise = torch.randn(1, 3, height * width, generator=generator)
    pixels = pixels + noise * uniform(0, 0.04, 1, 1)
    offset, scale = torch.tensor(OPENAI_DATASET_MEAN), torch.tensor(OPENAI_DATASET_STD)
    return ((pixels - offset[:, None]) / scale[:, None]).view(num, 3, height, width)
