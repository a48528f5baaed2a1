"""Classes lost in training: CLIP's pseudo-masks contain them, the trained segmenter does not.

CARB reduces the loss where the segmenter differs from CLIP, so a class that it never predicts gets
little loss and may stay lost. Human masks are not needed to see this.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from pipeline.config.carb import CarbParams
from pipeline.config.train import TrainParams
from pipeline.scenes.image_io import read_image
from pipeline.segmenter.inference import Segmenter, predict_mask
from pipeline.store.reader import PseudoMaskStore, hard_mask
from pipeline.system.progress import progress
from pipeline.system.text import first_few
from pipeline.training.crops import TrainingPhoto

PHOTOS_PER_CLASS, NAMED = 8, 12
LOST = 0.01  # a class predicted on a smaller share of the pixels that CLIP gives it is missing
MISSING_FILE = "missing_classes.json"  # beside the curves; the report shows its message


def photos_of_classes(photos: Sequence[TrainingPhoto]) -> list[TrainingPhoto]:
    """A few evenly spaced images of each class, by image-level labels; each image once."""
    chosen: set[int] = set()
    for present in np.array([photo.image_labels for photo in photos]).T:
        of_class = np.flatnonzero(present)
        places = np.linspace(0, len(of_class) - 1, min(PHOTOS_PER_CLASS, len(of_class)))
        chosen.update(of_class[places.round().astype(int)].tolist())
    return [photos[place] for place in sorted(chosen)]


def missing_classes(
    segmenter: Segmenter, store: PseudoMaskStore, photos: Sequence[TrainingPhoto]
) -> list[str]:
    """Classes that CLIP's global pseudo-masks contain and the segmenter (almost) never predicts.

    Args:
        segmenter: the trained model; its predictions do not use the image-level labels.
        store: the pseudo-masks.
        photos: images with their image-level labels.
    """
    counts = np.zeros((2, len(segmenter.classes)))
    for photo in progress(photos, label="check classes", total=len(photos)):
        grid = torch.from_numpy(store.read(photo.key, store.global_level))
        clip = hard_mask(grid, torch.from_numpy(photo.image_labels), photo.size).numpy()
        predicted = predict_mask(segmenter, read_image(photo.path), photo.size)
        for row, classes in enumerate((clip, predicted)):
            counts[row] += np.bincount(classes.flatten(), minlength=counts.shape[1])
    lost = (counts[0] > 0) & (counts[1] < LOST * counts[0])
    return [name for name, missing in zip(segmenter.classes, lost, strict=True) if missing]


def missing_summary(
    missing: Sequence[str], num_photos: int, *, carb: CarbParams, train: TrainParams
) -> dict[str, Any]:
    """The content of ``missing_classes.json``; its message is empty if no class is missing."""
    message = ""
    if missing:
        message = (
            f"classes lost: CLIP's pseudo-masks of {num_photos} training photos contain "
            f"{first_few(missing, NAMED)}, the segmenter (almost) never predicts "
            f"{'them' if len(missing) > 1 else 'it'}; {_remedies(carb, train)}"
        )
    return {"classes": list(missing), "photos": num_photos, "message": message}


def _remedies(carb: CarbParams, train: TrainParams) -> str:
    """Parameters to raise, with their values."""
    named = {"train.class_weight_power": train.class_weight_power}
    if carb.active_steps(train.steps):
        names = [
            "warmup_share" if carb.warmup_steps is None else "warmup_steps",
            "min_weight" if carb.weight is None else "weight",
        ]
        named |= {f"carb.{name}": getattr(carb, name) for name in names}
    else:
        named |= {"train.steps": train.steps}
    values = [f"{name} ({value:g})" for name, value in named.items()]
    return f"raise {', '.join(values[:-1])} or {values[-1]} in params.yaml"
