"""Inputs of training: sections of params.yaml, files and their checks, fingerprint of the run."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.base import Seed
from pipeline.config.carb import CarbParams
from pipeline.config.train import TrainingSections
from pipeline.scenes.image_labels import ImageLabels, read_image_labels
from pipeline.scenes.index import SceneIndex
from pipeline.segmenter.earlier import earlier_folder
from pipeline.segmenter.saved import WEIGHTS_FILE
from pipeline.store.checks import check_photos, check_store
from pipeline.store.reader import PseudoMaskStore
from pipeline.store.relabelled import Relabelled, check_relabelled, has_labels
from pipeline.system.files import file_digest, fingerprint
from pipeline.training.crops import LabelSource, TrainingPhoto

log = logging.getLogger("carb")
# Parameters that do not change the result: a run resumes where one with other values stopped.
_IRRELEVANT: Any = {
    "dataset": True,  # the store's keys and digests, and the labels, are hashed instead
    "clip": True,
    "train": {"workers", "checkpoint_every"},
}


class TrainSettings(TrainingSections):
    """What the stage `train` reads of params.yaml."""

    seed: Seed
    carb: CarbParams


@dataclass(frozen=True)
class Inputs:
    """All inputs of training; see `read`.

    Attributes:
        index: the images and classes.
        labels: image-level labels.
        store: CLIP's logits.
        source: the logits to learn from: CLIP's, or those of stage `relabel` in their place.
        encoder: file of the encoder's initial weights.
        fingerprint: of all inputs and parameters.
    """

    index: SceneIndex
    labels: ImageLabels
    store: PseudoMaskStore
    source: LabelSource
    encoder: Path
    fingerprint: str

    @classmethod
    def read(
        cls,
        *,
        index: Path,
        image_labels: Path,
        masks: Path,
        encoder: Path,
        params: TrainSettings,
        relabelled: Path | None = None,
    ) -> "Inputs":
        """Open the inputs and check that they belong together.

        ``relabelled`` is the output of stage `relabel`, with or without labels.

        Raises:
            ValueError: a file is missing or was made for other classes or images.
        """
        scenes, store = SceneIndex.read(index), PseudoMaskStore.open(masks)
        classes = scenes.label_space.names
        check_store(store, params.clip, scenes.label_space)
        missing = sorted({photo.key for photo in scenes.photos} - set(store.keys))
        if missing:
            raise ValueError(f"{masks} has no logits of '{missing[0]}'; run `dvc repro pseudo`")
        check_photos(store, {photo.key: photo.digest for photo in scenes.photos})
        labels = read_image_labels(image_labels, classes)
        source: LabelSource = store
        new = None
        if relabelled is not None and has_labels(relabelled):
            new = PseudoMaskStore.open(relabelled)
            trained = {photo.key for photo in scenes.of_split("train") if photo.key in labels}
            check_relabelled(new, store, trained)
            source = Relabelled(new, store)
            log.info("train: labels of stage relabel (%s)", relabelled)
        weights = params.segmenter.weights
        start = weights and file_digest(earlier_folder(Path(weights)) / WEIGHTS_FILE)
        name = fingerprint(
            {
                "params": params.model_dump(mode="json", exclude=_IRRELEVANT),
                "store": [store.attributes, store.shard_digests()],
                "relabelled": new and [new.attributes, new.shard_digests()],
                "labels": file_digest(image_labels),
                "encoder": file_digest(encoder) if encoder.is_file() else None,
                "start": start,
            }
        )
        return cls(scenes, labels, store, source, encoder, name)

    @property
    def digests(self) -> dict[str, str]:
        """SHA-256 of each image's file, by key."""
        return {photo.key: photo.digest for photo in self.index.photos}

    def photos(self, split: str, root: Path) -> list[TrainingPhoto]:
        """The images of a split that have image-level labels."""
        return [
            TrainingPhoto(photo.key, photo.path(root), photo.size, self.labels[photo.key])
            for photo in self.index.of_split(split)
            if photo.key in self.labels
        ]
