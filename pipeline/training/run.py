"""Training run: scratch folder, curves, previews, the saved segmenter."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipeline.config.train import TrainParams
from pipeline.segmenter.earlier import load_earlier
from pipeline.segmenter.encoder import load_encoder
from pipeline.segmenter.inference import Segmenter
from pipeline.segmenter.network import build_segmenter, check_batch_norm, check_crop, size_divisor
from pipeline.segmenter.saved import SNAPSHOTS, save_segmenter
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.command import memory_hint
from pipeline.system.devices import lock_on_rank_zero, precision_of, start_fabric
from pipeline.system.distributed import batch_norm_size
from pipeline.system.files import (
    atomic_path,
    bytes_below,
    check_room,
    copy_into,
    remove,
    write_json,
)
from pipeline.system.tensor_files import num_bytes
from pipeline.system.text import without_folders
from pipeline.training.augment import normalisation_of
from pipeline.training.batch_loss import make_loss
from pipeline.training.checkpoint import checkpoint_bytes
from pipeline.training.crops import CropDataset
from pipeline.training.curves import Curves
from pipeline.training.fit import LogStep, fit
from pipeline.training.inputs import Inputs, TrainSettings
from pipeline.training.missing_classes import (
    MISSING_FILE,
    missing_classes,
    missing_summary,
    photos_of_classes,
)
from pipeline.training.previews import preview_images, write_previews

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger("carb")
# Folders in the scratch folder; the first two together are the output with the curves.
CURVES, PREVIEWS = "curves", "previews"


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
        _check_disk(model, params.train, out=out, work=work)
        _warn_of_unused_settings(inputs.store, params)
        log.info("train: curves and previews of the running training: %s", work)
        with atomic_path(curves) as draft:
            live = Curves(work / CURVES, scratch / "speed" / work.name)
            model = fit_segmenter(fabric, model, inputs, params, work=work, log_step=live.log_step)
            copy_into(work / CURVES, draft)
            copy_into(work / PREVIEWS, draft / PREVIEWS)
            _check_classes(segmenter_of(model, inputs, params), inputs, params, draft)
        with atomic_path(out) as draft:
            _save(draft, model, inputs, params, precision_of(fabric))
            if params.train.snapshots:
                copy_into(work / SNAPSHOTS, draft / SNAPSHOTS)
        remove(work)


def _check_disk(model: nn.Module, train: TrainParams, *, out: Path, work: Path) -> None:
    """Raise ValueError if segmenters and checkpoints do not fit on the disk."""
    one = num_bytes(model.state_dict())
    state = checkpoint_bytes(model, train.optimizer) + train.snapshots * one
    check_room({out: (1 + train.snapshots) * one, work: max(0, state - bytes_below(work))})


def _save(
    folder: Path,
    model: nn.Module,
    inputs: Inputs,
    params: TrainSettings,
    precision: str,
    *,
    step: int | None = None,
) -> None:
    """Write a segmenter's folder; ``step`` is that of a snapshot, None for the last network."""
    save_segmenter(
        folder,
        model,
        classes=inputs.store.classes,
        palette=inputs.index.label_space.palette,
        **normalisation_of(params.segmenter.normalisation)._asdict(),
        base_size=params.views.base_size,
        extra=training_metadata(inputs, params, precision, step=step),
    )


def _check_classes(
    segmenter: Segmenter, inputs: Inputs, params: TrainSettings, folder: Path
) -> None:
    """Name the classes that training lost, in the log and in a file of ``folder``."""
    photos = photos_of_classes(inputs.photos("train", Path(params.dataset.root)))
    missing = missing_classes(segmenter, inputs.store, photos)
    summary = missing_summary(missing, len(photos), carb=params.carb, train=params.train)
    if missing:
        log.warning("train: %s", summary["message"])
    write_json(folder / MISSING_FILE, summary)


def initial_segmenter(inputs: Inputs, params: TrainSettings) -> nn.Module:
    """The untrained segmenter, its encoder with the weights of the encoder stage, or all of it with
    those of an earlier segmenter (``segmenter.weights``).

    Raises:
        ValueError: the architecture does not exist, or crops, batch or weights do not fit it.
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
    if params.segmenter.weights is not None:
        normalisation = normalisation_of(params.segmenter.normalisation)
        about = load_earlier(
            model,
            Path(params.segmenter.weights),
            encoder=params.segmenter.encoder,
            classes=inputs.store.classes,
            normalisation=(normalisation.mean, normalisation.std),
        )
        log.info("train: %s", about)
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
    """Train a model on the training images; checkpoint, previews and snapshots go to ``work``."""
    root, train, store = Path(params.dataset.root), params.train, inputs.store
    photos = inputs.photos("train", root)
    normalisation = normalisation_of(params.segmenter.normalisation)
    previewed = preview_images(inputs.photos("val", root) or photos)

    def preview(step: int, current: nn.Module) -> None:
        segmenter = segmenter_of(current, inputs, params)
        write_previews(work / PREVIEWS, segmenter, store, previewed, step=step, tau=params.carb.tau)

    def keep(step: int, current: nn.Module) -> None:
        place = work / SNAPSHOTS / f"{step:06d}"
        _save(place, current, inputs, params, precision_of(fabric), step=step)

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
            snapshot=keep,
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


def training_metadata(
    inputs: Inputs, params: TrainSettings, precision: str, *, step: int | None = None
) -> dict[str, Any]:
    """Training metadata for the model card: JSON values without absolute paths."""
    train, root = params.train, Path(params.dataset.root)
    left = 0 if step is None else train.steps - step
    of_snapshot = {} if step is None else {"snapshot_of": train.steps}
    return {
        "dataset": inputs.index.label_space.name,
        "steps": train.steps - left,
        **of_snapshot,
        "carb_steps": max(0, params.carb.active_steps(train.steps) - left),
        "photos": len(inputs.photos("train", root)),
        "clip": without_folders(params.clip.model),
        "clip_sha256": inputs.store.attributes["recipe"]["weights"],
        "encoder": params.segmenter.encoder,
        "encoder_weights": without_folders(
            params.segmenter.weights or params.segmenter.encoder_weights
        ),
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
