"""Choice of parameters for a folder of photos and a machine, each with its reason.

The constants are those of the recipes: recipes/folder.yaml, and recipes/camvid.yaml for a CPU.
"""

import math
from dataclasses import dataclass
from typing import Any

import open_clip

from pipeline.clip.dense import DenseClip
from pipeline.config.params import Params
from pipeline.planning.survey import Machine, Survey
from pipeline.views import cover, level_size

MIN_ZOOM, MAX_ZOOM = 0.05, 16.0  # the schema's limits
STRIDE = 32  # of the encoder: sides of crops
FAST_CPU = 8  # cores from which a CPU trains on as many pixels as a GPU
# Views of each photo in training: 30 000 steps of 8 on 2975 photos (the paper, Cityscapes); 600
# steps of 4 on 120 (the demo).
VIEWS_GPU, VIEWS_CPU = 80, 20
MAX_STEPS = 30_000  # of the paper
LARGEST_CROP = 512 * 1024  # of the paper, in pixels
# Bytes per pixel of a batch: activations of recipes/folder.yaml's network in float32, counted by
# saved_tensors_hooks (1160 to 1280), for crop and local view (a quarter), doubled for the rest.
GPU_BYTES = 2 * 1280 * 1.25
GPU_SHARE = 0.75  # of its memory; the rest is for weights, CUDA and other programs


@dataclass(frozen=True)
class Choice:
    """A parameter by its dotted name, the value chosen, and why."""

    name: str
    value: Any
    reason: str


def choose(
    photos: Survey,
    machine: Machine,
    recipe: Params,
    cpu_recipe: Params,
    clip: DenseClip | None = None,
) -> list[Choice]:
    """The parameters that depend on photos, machine and CLIP.

    Args:
        photos: the folder.
        machine: where the training will run.
        recipe: recipes/folder.yaml.
        cpu_recipe: recipes/camvid.yaml, which is for a CPU.
        clip: of a folder, in place of the recipe's.
    """
    root = Choice("dataset.root", photos.root.as_posix(), photos.sentence())
    views = _views(photos, machine, recipe, cpu_recipe)
    batch = _batch_size(photos, machine, views[0].value, recipe, cpu_recipe)
    return [
        root,
        *_clip(clip),
        *_levels(photos, recipe, clip),
        *views,
        batch,
        *_training(photos, machine, recipe, batch.value),
    ]


def _clip(clip: DenseClip | None) -> list[Choice]:
    """The names of a CLIP on disk; none for the recipe's."""
    if clip is None:
        return []
    return [
        Choice("clip.model", clip.name, "named by --clip"),
        Choice("clip.pretrained", None, "the folder contains the weights"),
    ]


def _levels(photos: Survey, recipe: Params, clip: DenseClip | None) -> list[Choice]:
    """Zooms at which CLIP sees as many pixels as in the recipe, and whole windows."""
    if clip is None:
        tower = open_clip.get_model_config(recipe.clip.model)["vision_cfg"]
        model, patch = recipe.clip.model, int(tower["patch_size"])
        window = (int(tower["image_size"]), int(tower["image_size"]))
    else:
        model, patch, window = clip.name, clip.patch_size, clip.image_size
    height, width = photos.size
    least = max(window[0] / height, window[1] / width)
    fit = math.sqrt(math.prod(recipe.views.base_size) / (height * width))
    chosen = []
    for name, level in recipe.clip.levels.items():
        zoom = max(fit, least) * level.zoom / recipe.clip.levels["global"].zoom
        zoom = float(f"{min(max(zoom, MIN_ZOOM), MAX_ZOOM):.2g}")
        size = level_size(photos.size, zoom=zoom, patch_size=patch)
        boxes = cover(size, window=window, overlap=level.overlap, patch_size=patch)
        why = f"the photos become {size[1]}x{size[0]} for CLIP"
        why += ", so that windows are whole" if fit < least else ""
        windows = f"the training size of {model}; {len(boxes)} windows per photo"
        chosen += [
            Choice(f"clip.levels.{name}.zoom", zoom, why),
            Choice(f"clip.levels.{name}.window", list(window), windows),
        ]
    return chosen


def _views(photos: Survey, machine: Machine, recipe: Params, cpu_recipe: Params) -> list[Choice]:
    """Sizes of training: the photos' shape, and as many pixels as the machine can train on."""
    height, width = photos.size
    pixels, why = math.prod(recipe.views.base_size), "as many pixels as in recipes/folder.yaml"
    if machine.gpu is None and machine.cores < FAST_CPU:
        pixels = math.prod(cpu_recipe.views.base_size)
        why = f"few pixels, as in recipes/camvid.yaml, for {machine.cores} CPU cores"
    elif machine.gpu is not None and _fits(machine, recipe.train.batch_size * LARGEST_CROP):
        pixels, why = LARGEST_CROP, "as many pixels as the paper's crop, which fit into the GPU"
    if height * width < pixels:
        pixels, why = height * width, "the photos' own size"
    scale = math.sqrt(pixels / (height * width))
    base = [max(STRIDE, round(length * scale / STRIDE) * STRIDE) for length in photos.size]
    return [
        Choice("views.base_size", base, f"the shape of {width}x{height}, multiples of 32; {why}"),
        Choice("views.crop", base, "the whole photo, as in recipes/folder.yaml"),
        Choice("views.local_window", [length // 2 for length in base], "half of the crop"),
    ]


def _fits(machine: Machine, pixels: int) -> bool:
    """Whether a batch of so many pixels fits into the GPU."""
    return pixels * GPU_BYTES <= GPU_SHARE * machine.gpu_bytes


def _batch_size(
    photos: Survey, machine: Machine, crop: list[int], recipe: Params, cpu_recipe: Params
) -> Choice:
    """Photos per step: the recipe's, halved until they fit into the GPU."""
    if machine.gpu is None:
        size, why = cpu_recipe.train.batch_size, "as in recipes/camvid.yaml, for a CPU"
    else:
        size = recipe.train.batch_size
        while size > 1 and not _fits(machine, size * math.prod(crop)):
            size //= 2
        need, there = size * math.prod(crop) * GPU_BYTES / 1e9, machine.gpu_bytes / 1e9
        why = f"about {need:.1f} GB of the GPU's {there:.0f} GB (counted, not measured)"
    if photos.counts["train"] < size:
        size, why = photos.counts["train"], "all training photos"
    return Choice("train.batch_size", size, why)


def _training(photos: Survey, machine: Machine, recipe: Params, batch: int) -> list[Choice]:
    """Length of the training, its checkpoints, and processes that load photos."""
    count = photos.counts["train"]
    if machine.gpu is None:
        views, least, most = VIEWS_CPU, recipe.train.steps // 2, recipe.train.steps
        workers, why = min(1, machine.cores - 1), "the cores are needed for training"
    else:
        views, least, most = VIEWS_GPU, recipe.train.steps, MAX_STEPS
        workers = max(1, min(2 * recipe.train.workers, machine.cores - 1))
        why = f"the GPU waits for crops otherwise; {machine.cores} CPU cores"
    wanted = round(views * count / batch / 100) * 100
    steps = min(max(wanted, least), most)
    seen = f"each of {count} training photos is seen {steps * batch / count:.0f} times"
    bounds = f"wanted: {views} times, in {least} to {most} steps"
    every = steps // (recipe.train.steps // recipe.train.checkpoint_every)
    return [
        Choice("train.steps", steps, f"{seen}; {bounds}"),
        Choice("train.workers", workers, why),
        Choice("train.checkpoint_every", every, "four times in the training"),
        Choice("train.preview_every", every, "four times in the training"),
    ]
