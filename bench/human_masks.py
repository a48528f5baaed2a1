"""Human masks in the place of pseudo-masks: the upper bound of a training recipe.

Stage `train` takes them as it takes new labels of stage `relabel`. No stage reads human masks of
training images itself.
"""

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from pipeline.config.dataset import DatasetParams
from pipeline.datasets import open_dataset
from pipeline.datasets.base import read_scene_mask
from pipeline.scenes.classes import IGNORE_INDEX
from pipeline.store.plan import Photo, Plan
from pipeline.store.reader import upsampled
from pipeline.store.writer import StoreWriter, publish
from pipeline.system.files import remove
from pipeline.training.inputs import Inputs

SIDE = 256  # of the stored masks, at most; in cells
SURE = 100.0  # added to the logit of a pixel's class


def write_human_masks(inputs: Inputs, dataset: DatasetParams, out: Path) -> None:
    """Write human masks of the training images as labels of stage `relabel`.

    Pixels that no person labelled keep CLIP's pseudo-mask.

    Args:
        inputs: of a training.
        dataset: the data set.
        out: store to write.

    Raises:
        ValueError: a training image has no human mask.
    """
    adapter, store = open_dataset(dataset.name, dataset.root), inputs.store
    scenes = {scene.key: scene for scene in adapter.scenes("train")}
    photos = inputs.photos("train", Path(dataset.root))
    bare = [photo.key for photo in photos if scenes[photo.key].mask is None]
    if bare:
        raise ValueError(f"{dataset.root}: no human mask of '{bare[0]}'; the bound needs them all")
    shrinks = [max(1, max(photo.size) // SIDE) for photo in photos]
    level, digests = store.global_level, inputs.digests
    plan = Plan(
        {"of": "human masks"},
        store.classes,
        [Photo(photo.key, digests[photo.key], photo.size) for photo in photos],
        {
            level: [
                (p.size[0] // by, p.size[1] // by) for p, by in zip(photos, shrinks, strict=True)
            ]
        },
    )
    draft = out.with_name(f".{out.name}-draft")
    writer = StoreWriter(draft, plan, text=store.text, previous=None)

    def logits_of(row: int) -> np.ndarray:
        key, size = photos[row].key, plan.grids[level][row]
        mask = torch.from_numpy(read_scene_mask(scenes[key], adapter.read_mask))
        small = F.interpolate(mask[None, None].float(), size, mode="nearest")[0, 0].long()
        votes = F.one_hot(small.clamp_max(len(store.classes)), len(store.classes) + 1)
        votes = votes[..., :-1] * (small != IGNORE_INDEX)[..., None]
        clip = upsampled(torch.from_numpy(store.read(key, level)), size)
        return (clip + SURE * votes.permute(2, 0, 1)).numpy()

    for _, shard in writer.pending([level]):
        for _ in writer.write_shard(level, shard, logits_of):
            pass
    publish(writer.path, out)
    remove(draft)
