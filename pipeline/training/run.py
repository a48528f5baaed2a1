"""Training run: inputs and their checks, scratch folder, curves, previews, the saved segmenter."""

import logging
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipeline.config.base import Sections, Seed
from pipeline.config.carb import CarbParams
from pipeline.config.clip import ClipParams
from pipeline.config.dataset import DatasetParams
from pipeline.config.segmenter import SegmenterParams
from pipeline.config.train import TrainParams
from pipeline.config.views import AugmentParams, ViewsParams
from pipeline.scenes.image_labels import ImageLabels, read_image_labels
from pipeline.scenes.index import SceneIndex
from pipeline.segmenter.encoder import load_encoder
from pipeline.segmenter.inference import Segmenter
from pipeline.segmenter.network import build_segmenter, check_batch_norm, check_crop, size_divisor
from pipeline.segmenter.saved import save_segmenter
from pipeline.store.checks import check_photos, check_store
from pipeline.store.reader import PseudoMaskStore
from pipeline.store.relabelled import Relabelled, check_relabelled, has_labels
from pipeline.system.command import memory_hint
from pipeline.system.devices import lock_on_rank_zero, precision_of, start_fabric
from pipeline.system.distributed import batch_norm_size
from pipeline.system.files import (
    atomic_path,
    bytes_below,
    check_room,
    file_digest,
    fingerprint,
    remove,
    write_json,
)
from pipeline.system.tensor_files import num_bytes
from pipeline.system.text import without_folders
from pipeline.training.augment import normalisation_of
from pipeline.training.batch_loss import make_loss
from pipeline.training.checkpoint import checkpoint_bytes
from pipeline.training.crops import CropDataset, LabelSource, TrainingPhoto
from pipeline.training.fit import LogStep, fit
from pipeline.training.previews import preview_images, write_previews

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger("carb")
# Parameters that do not change the result: a run resumes where one with other values stopped.
_IRRELEVANT: Any = {
    "dataset": True,  # the store's keys and digests, and the labels, are hashed instead
    "clip": True,
    "train": {"workers", "checkpoint_every"},
}
CURVES = Path("plots/metrics")
PREVIEWS = "previews"  # folder in the scratch folder and beside the curves


class TrainSettings(Sections):
    """What the stage `train` reads of params.yaml."""

    seed: Seed
    dataset: DatasetParams
    clip: ClipParams
    views: ViewsParams
    augment: AugmentParams
    segmenter: SegmenterParams
    carb: CarbParams
    train: TrainParams


class Curves:
    """Curves of a run for ``dvc plots``: one TSV file per metric, and the last step's metrics.

    Args:
        directory: for curves that are part of the result: equal runs give equal bytes.
        speed_directory: for images/s, which differs between runs; no output for DVC.
    """

    def __init__(self, directory: Path, speed_directory: Path) -> None:
        self.directory, self.speed_directory = directory, speed_directory
        for folder in (directory, speed_directory):
            remove(folder)
            (folder / CURVES).mkdir(parents=True)

    def log_step(self, metrics: dict[str, float]) -> None:
        """Add a point to every curve, at the metric ``step``."""
        step, last = int(metrics["step"]), dict[str, float]()
        for name, value in metrics.items():
            speed = name == "images_per_s"
            if name != "step":
                file = (self.speed_directory if speed else self.directory) / CURVES / f"{name}.tsv"
                head = "" if file.exists() else f"step\t{name}\n"
                with file.open("a", encoding="utf-8") as handle:
                    handle.write(f"{head}{step}\t{value}\n")
                last |= {} if speed else {name: value}
        write_json(self.directory / "metrics.json", last | {"step": step})


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

        ``relabelled`` is the output of stage `relabel`, an empty folder if there are no new labels.

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
        name = fingerprint(
            {
                "params": params.model_dump(mode="json", exclude=_IRRELEVANT),
                "store": [store.attributes, store.shard_digests()],
                "relabelled": new and [new.attributes, new.shard_digests()],
                "labels": file_digest(image_labels),
                "encoder": file_digest(encoder) if encoder.is_file() else None,
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


def train_segmenter(
    inputs: Inputs, params: TrainSettings, *, out: Path, curves: Path, scratch: Path
) -> None:
    """Train, and write the segmenter to ``out``, curves and previews to ``curves``.

    Work in progress is in a folder of ``scratch`` that is named by the run's fingerprint.
    """
    work = scratch / f"train-{inputs.fingerprint[:16]}"
    fabric = start_fabric(params.train.precision)
    with lock_on_rank_zero(fabric, work):
        model = initial_segmenter(inputs, params)
        if fabric.global_rank > 0:
            fit_segmenter(fabric, model, inputs, params, work=work)
            return
        state = checkpoint_bytes(model, params.train.optimizer)
        check_room({out: num_bytes(model.state_dict()), work: max(0, state - bytes_below(work))})
        _warn_of_unused_settings(inputs.store, params)
        with atomic_path(curves) as draft:
            live = Curves(draft, scratch / "speed" / work.name)
            model = fit_segmenter(fabric, model, inputs, params, work=work, log_step=live.log_step)
            shutil.copytree(work / PREVIEWS, draft / PREVIEWS)
        save_segmenter(
            out,
            model,
            classes=inputs.store.classes,
            palette=inputs.index.label_space.palette,
            **normalisation_of(params.segmenter.normalisation)._asdict(),
            base_size=params.views.base_size,
            extra=training_metadata(inputs, params, precision_of(fabric)),
        )
        remove(work)


def initial_segmenter(inputs: Inputs, params: TrainSettings) -> nn.Module:
    """The untrained segmenter, its encoder with the weights of the encoder stage.

    Raises:
        ValueError: the architecture does not exist, or crops or the batch do not fit it.
    """
    torch.manual_seed(params.seed)
    text = params.segmenter.classifier == "text"
    model = build_segmenter(
        arch=params.segmenter.arch,
        encoder=params.segmenter.encoder,
        num_classes=len(inputs.store.classes),
        options=params.segmenter.options,
        text=torch.from_numpy(inputs.store.text) if text else None,
    )
    load_encoder(model, inputs.encoder)
    check_crop(model, params.views.crop)
    check_batch_norm(
        model,
        batch_size=batch_norm_size(params.train.batch_size),
        crop=params.views.crop,
        name="train.batch_size",
    )
    return model


def segmenter_of(model: nn.Module, inputs: Inputs, params: TrainSettings) -> Segmenter:
    """A network in training with what inference needs."""
    return Segmenter(
        model=model,
        classes=inputs.store.classes,
        palette=inputs.index.label_space.palette,
        **normalisation_of(params.segmenter.normalisation)._asdict(),
        base_size=params.views.base_size,
        stride=size_divisor(model),
        extra={},
    )


def fit_segmenter(
    fabric: "Fabric",
    model: nn.Module,
    inputs: Inputs,
    params: TrainSettings,
    *,
    work: Path,
    log_step: LogStep = lambda metrics: None,
) -> nn.Module:
    """Train a model on the training images; checkpoint and previews are written to ``work``."""
    root, train, store = Path(params.dataset.root), params.train, inputs.store
    photos = inputs.photos("train", root)
    normalisation = normalisation_of(params.segmenter.normalisation)
    previewed = preview_images(inputs.photos("val", root) or photos)

    def preview(step: int, current: nn.Module) -> None:
        segmenter = segmenter_of(current, inputs, params)
        write_previews(work / PREVIEWS, segmenter, store, previewed, step=step, tau=params.carb.tau)

    crops = CropDataset(
        photos,
        inputs.source,
        global_level=store.global_level,
        local_levels=store.local_levels if train.local_term else [],
        views=params.views,
        augment=params.augment,
        seed=params.seed,
    )
    with memory_hint(
        f"lower params.yaml: train.batch_size ({train.batch_size}), views.crop or "
        f"train.workers ({train.workers})"
    ):
        model = fit(
            fabric,
            model,
            make_loss(
                inputs.source, photos, carb=params.carb, train=train, normalisation=normalisation
            ),
            crops,
            train,
            checkpoint=work / "checkpoint.safetensors",
            log_step=log_step,
            preview=preview,
        )
        if fabric.global_rank == 0:
            preview(train.steps, model)
    return model


def _warn_of_unused_settings(store: PseudoMaskStore, params: TrainSettings) -> None:
    """Name parameters that have no effect on this training."""
    carb, steps = params.carb, params.train.steps
    if params.train.local_term and not store.local_levels:
        log.warning(
            "params.yaml: train.local_term is true, but clip.levels has no local level; training "
            "uses the global view only"
        )
    if carb.warmup_steps is not None and carb.warmup_share is not None:
        log.warning(
            "params.yaml: carb.warmup_steps (%d) is used, carb.warmup_share (%g) is ignored; "
            "leave one of them empty",
            *(carb.warmup_steps, carb.warmup_share),
        )
    if carb.enabled and carb.active_steps(steps) == 0:
        log.warning(
            "params.yaml: carb.%s leaves CARB no step, the warm-up is %d of train.steps (%d); "
            "lower it, or set carb.enabled to false",
            *("warmup_share" if carb.warmup_steps is None else "warmup_steps",),
            *(carb.warmup_of(steps), steps),
        )


def training_metadata(inputs: Inputs, params: TrainSettings, precision: str) -> dict[str, Any]:
    """Training metadata for the model card: JSON values without absolute paths."""
    train, root = params.train, Path(params.dataset.root)
    return {
        "dataset": inputs.index.label_space.name,
        "steps": train.steps,
        "carb_steps": params.carb.active_steps(train.steps),
        "photos": len(inputs.photos("train", root)),
        "clip": without_folders(params.clip.model),
        "clip_sha256": inputs.store.attributes["recipe"]["weights"],
        "encoder": params.segmenter.encoder,
        "encoder_weights": without_folders(params.segmenter.encoder_weights),
        "precision": precision,
        "settings": {
            "Photos per step": train.batch_size,
            "Crop, height x width": "{} x {}".format(*params.views.crop),
            "Optimizer": f"{train.optimizer}, highest learning rate {train.lr:g}, {train.schedule}",
            "CARB": params.carb.acted(train.steps),
            "Classifier": params.segmenter.classifier,
            "Seed": params.seed,
        },
    }
