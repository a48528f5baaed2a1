"""Pictures of a training run: how the predictions on a few photos come about, step by step."""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from pipeline.carb import split_by_consistency
from pipeline.config.params import CarbParams
from pipeline.report.drawing import colour_mask, mark_region
from pipeline.report.panels import LegendItem, PanelRow, class_entries, downscale_for_panel, panel
from pipeline.report.pseudo_mask_panels import level_masks, level_titles
from pipeline.scenes.image_io import read_image
from pipeline.segmenter.inference import Segmenter, most_likely, predict_logits
from pipeline.store.reader import PseudoMaskStore
from pipeline.training.crops import TrainingPhoto


class Previews:
    """Pictures of a few photos, again and again while the segmenter learns.

    They keep the data set's own colours, and the font of their time: a change of ``pictures`` must
    not train again.

    Args:
        photos: the photos.
        store: the pseudo-masks.
        carb: how regions are split, and when that starts to matter.
        steps: of the whole training.
    """

    def __init__(
        self,
        photos: Sequence[TrainingPhoto],
        store: PseudoMaskStore,
        carb: CarbParams,
        *,
        steps: int,
    ) -> None:
        self.photos, self.store, self.carb = photos, store, carb
        self.warmup_steps = carb.warmup_of(steps)

    def draw(self, segmenter: Segmenter, step: int) -> Image.Image:
        """A block a photo: photo, pseudo-mask of each level, prediction (no image label shown), and
        on the photo the regions that CARB would tell apart now.
        """
        near = self.store.levels.index(self.store.global_level)
        blocks = []
        for photo in self.photos:
            opened = read_image(photo.path)
            image, _ = downscale_for_panel(opened)
            size = (image.shape[0], image.shape[1])
            labels = torch.from_numpy(photo.image_labels)
            masks = level_masks(self.store, photo.key, labels, size)
            logits = predict_logits(segmenter, opened, size).cpu()
            _, noisy = split_by_consistency(
                logits[None], torch.from_numpy(masks[near])[None], labels[None], tau=self.carb.tau
            )
            classes = [*masks, most_likely(logits).numpy()]
            drawn = [colour_mask(mask, segmenter.palette) for mask in classes]
            blocks.append(
                PanelRow([image, *drawn, mark_region(image, noisy[0].numpy())], photo.key)
            )
        return panel(
            blocks,
            titles=["photo", *level_titles(self.store), "segmenter", "reliable and noisy"],
            legend=[class_entries(self.store.classes, segmenter.palette), self._marks()],
            heading=f"Step {step}, {self._rule(step)}",
        )

    def _rule(self, step: int) -> str:
        """What the regions mean to the loss at a step."""
        if not self.carb.enabled:
            return "regions are drawn but not used: carb.enabled is false"
        if step <= self.warmup_steps:
            return f"warm-up: regions are not used before step {self.warmup_steps + 1}"
        return f"regions at tau {self.carb.tau:g}, among the classes of the photo"

    def _marks(self) -> list[LegendItem]:
        plain = np.full((18, 36, 3), 150, np.uint8)
        near = f"the segmenter differs from CLIP ({self.store.global_level})"
        if self.carb.tau > 0:
            near += f" or gives its class less than {self.carb.tau:g}"
        return [
            LegendItem("reliable: the photo as it is", plain),
            LegendItem(f"noisy: {near}", mark_region(plain, np.ones(plain.shape[:2], np.bool_))),
        ]
