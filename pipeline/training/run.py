"""A training run from files to files: what it reads, where it resumes, what it leaves."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from pipeline.config.params import Params
from pipeline.report.fonts import use_font
from pipeline.report.previews import Previews
from pipeline.scenes.image_labels import ImageLabels, read_image_labels
from pipeline.scenes.index import SceneIndex
from pipeline.segmenter.encoder import load_encoder
from pipeline.segmenter.inference import Segmenter
from pipeline.segmenter.network import build_segmenter, check_batch_norm, check_crop, size_divisor
from pipeline.segmenter.saved import save_segmenter
from pipeline.store.masks import check_photos, check_store
from pipeline.store.reader import PseudoMaskStore
from pipeline.system.command import memory_hint
from pipeline.system.devices import lock_on_rank_zero, start_fabric
from pipeline.system.files import (
    atomic_path,
    bytes_below,
    check_room,
    file_digest,
    fingerprint,
    remove,
)
from pipeline.system.tensor_files import num_bytes
from pipeline.system.text import without_folders
from pipeline.training.augment import normalisation_of
from pipeline.training.checkpoint import checkpoint_bytes
from pipeline.training.crops import TrainingPhoto
from pipeline.training.curves import Curves
from pipeline.training.fit import fit

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger("carb")
PREVIEW_PHOTOS = 3
# What another training does not depend on: a run goes on where one of other values stopped.
_NO_MATTER: Any = {
    "dataset": True,  # the store's keys and digests, and the labels, say what was learned from
    "clip": True,
    "eval": True,
    "pictures": True,
    "warm_start": True,
    "train": {"workers", "checkpoint_every"},
}
PREVIEWS = "previews"  # folder of pictures in a run's scratch folder


@dataclass(frozen=True)
class Inputs:
    """All that training sees; see `read`."""

    index: SceneIndex
    labels: ImageLabels
    store: PseudoMaskStore
    encoder: Path
    fingerprint: str

    @classmethod
    def read(
        cls, *, index: Path, image_labels: Path, masks: Path, encoder: Path, params: Params
    ) -> "Inputs":
        """Open the inputs and check that they belong together.

        Raises:
            ValueError: a file is missing or was made for other classes or photos.
        """
        scenes, store = SceneIndex.read(index), PseudoMaskStore.open(masks)
        classes = scenes.label_space.names
        check_store(store, params.clip, scenes.label_space)
        missing = sorted({photo.key for photo in scenes.photos} - set(store.keys))
        if missing:
            raise ValueError(f"{masks} has no logits of '{missing[0]}'; run `dvc repro pseudo`")
        check_photos(store, {photo.key: photo.digest for photo in scenes.photos})
        labels = read_image_labels(image_labels, classes)
        name = fingerprint(
            {
                "params": params.model_dump(mode="json", exclude=_NO_MATTER),
                "store": [store.attributes, store.shard_digests()],
                "labels": file_digest(image_labels),
                "encoder": file_digest(encoder) if encoder.is_file() else None,
            }
        )
        return cls(scenes, labels, store, encoder, name)

    def photos(self, split: str, root: Path) -> list[TrainingPhoto]:
        """The photos of a split that have image-level labels."""
        return [
            TrainingPhoto(photo.key, photo.path(root), photo.size, self.labels[photo.key])
            for photo in self.index.of_split(split)
            if photo.key in self.labels
        ]


def first_segmenter(inputs: Inputs, params: Params) -> nn.Module:
    """The untrained segmenter, its encoder with the weights that the encoder stage chose.

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
        batch_size=params.train.batch_size,
        crop=params.views.crop,
        name="train.batch_size",
    )
    return model


def train_segmenter(
    inputs: Inputs, params: Params, *, out: Path, curves: Path, scratch: Path
) -> None:
    """Train and save; work in progress lies in a scratch folder named by the run's fingerprint.

    Args:
        inputs: what training sees.
        params: all parameters.
        out: folder for the segmenter.
        curves: folder for curves and pictures.
        scratch: folder for work in progress.
    """
    work = scratch / f"train-{inputs.fingerprint[:16]}"
    fabric = start_fabric(params.train.precision)
    # For the previews; a change of it does not train again: dvc.yaml does not name it there.
    use_font(params.pictures.font, [*inputs.store.classes, *inputs.store.keys])
    with lock_on_rank_zero(fabric, work):
        model = first_segmenter(inputs, params)
        state = checkpoint_bytes(model, params.train.optimizer)
        room = {out: num_bytes(model.state_dict()), work: max(0, state - bytes_below(work))}
        if fabric.global_rank == 0:
            check_room(room)
            _warn_of_idle_settings(inputs.store, params)
        with _live_curves(fabric, curves, scratch / "speed" / work.name, work) as live:
            model = _train(fabric, model, inputs, params, live=live, work=work)
        if fabric.global_rank == 0:
            save_segmenter(
                out,
                model,
                classes=inputs.store.classes,
                palette=inputs.index.label_space.palette,
                **normalisation_of(params.segmenter.normalisation)._asdict(),
                base_size=params.views.base_size,
                extra=known_of(inputs, params),
            )
            remove(work)


def _warn_of_idle_settings(store: PseudoMaskStore, params: Params) -> None:
    """Name what params.yaml asks for and this training does not do."""
    carb, steps = params.carb, params.train.steps
    if params.train.local_term and not store.far:
        log.warning(
            "params.yaml: train.local_term is true, but clip.levels has no local level; training "
            "sees the global view only"
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


def known_of(inputs: Inputs, params: Params) -> dict[str, Any]:
    """What the segmenter's card tells of its training, JSON values without anybody's paths."""
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
        "settings": {
            "Photos a step": train.batch_size,
            "Crop, height x width": "{} x {}".format(*params.views.crop),
            "Optimizer": f"{train.optimizer}, highest learning rate {train.lr:g}, {train.schedule}",
            "CARB": params.carb.acted(train.steps),
            "Classifier": params.segmenter.classifier,
            "Seed": params.seed,
        },
    }


def _train(
    fabric: "Fabric",
    model: nn.Module,
    inputs: Inputs,
    params: Params,
    *,
    live: Curves | None,
    work: Path,
) -> nn.Module:
    """Train with curves, pictures and checkpoints."""
    root, palette = Path(params.dataset.root), inputs.index.label_space.palette
    shown = inputs.photos("val", root) or inputs.photos("train", root)
    every = max(1, len(shown) // PREVIEW_PHOTOS)
    previews = Previews(
        shown[::every][:PREVIEW_PHOTOS], inputs.store, params.carb, steps=params.train.steps
    )

    def log_step(figures: dict[str, float]) -> None:
        if live is not None:
            live.log_step(figures)

    def show(step: int, current: nn.Module) -> None:
        if live is not None:
            segmenter = as_segmenter(current, inputs, params, palette)
            _keep_picture(live, work, step, previews.draw(segmenter, step))

    with memory_hint(
        f"lower params.yaml: train.batch_size ({params.train.batch_size}), views.crop or "
        f"train.workers ({params.train.workers})"
    ):
        return fit(
            fabric,
            model,
            inputs.store,
            inputs.photos("train", root),
            params,
            checkpoint=work / "checkpoint.safetensors",
            log_step=log_step,
            show=show,
        )


@contextmanager
def _live_curves(
    fabric: "Fabric", directory: Path, speed: Path, work: Path
) -> Iterator[Curves | None]:
    """The curves of a run, whole or not there; only the first process draws them."""
    if fabric.global_rank > 0:
        yield None
        return
    with atomic_path(directory) as draft:
        live = Curves(draft, speed)
        for picture in sorted((work / PREVIEWS).glob("*.png")):  # of before the run was stopped
            with Image.open(picture) as opened:
                live.log_picture(f"preview/{picture.stem}", opened)
        yield live
        live.close()


def _keep_picture(live: Curves, work: Path, step: int, picture: Image.Image) -> None:
    """Show a picture, and keep it for the case that the run is stopped."""
    live.log_picture(f"preview/{step:06d}", picture)
    with atomic_path(work / PREVIEWS / f"{step:06d}.png") as draft:
        picture.save(draft, format="PNG")


def as_segmenter(
    model: nn.Module, inputs: Inputs, params: Params, palette: np.ndarray
) -> Segmenter:
    """The model in training, as it would be loaded."""
    return Segmenter(
        model=model,
        classes=inputs.store.classes,
        palette=palette,
        **normalisation_of(params.segmenter.normalisation)._asdict(),
        base_size=params.views.base_size,
        stride=size_divisor(model),
        extra={},
    )
