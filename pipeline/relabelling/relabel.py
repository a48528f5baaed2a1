"""Relabelling (stage `relabel`): a segmenter that has not seen an image labels it anew.

In each round one segmenter per fold learns from the labels of the other folds. Its
log-probabilities for its own fold's images, plus CLIP's logits, are the new labels. Random errors
of CLIP are corrected; those that it repeats everywhere remain. The final training starts anew.
"""

import logging
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn

from pipeline.config.carb import CarbParams
from pipeline.config.relabel import RelabelSettings
from pipeline.relabelling.folds import folds_of
from pipeline.relabelling.place import PlacedLogits, place_prior
from pipeline.scenes.index import read_unchanged
from pipeline.segmenter.inference import Segmenter, TestTimeOptions, predict_logits
from pipeline.store.plan import Grid, Photo, Plan
from pipeline.store.reader import PseudoMaskStore, upsampled
from pipeline.store.relabelled import Relabelled
from pipeline.store.writer import STORE, StoreWriter, publish
from pipeline.system.devices import lock_on_rank_zero, start_fabric
from pipeline.system.files import fingerprint, remove
from pipeline.system.progress import progress
from pipeline.system.tensor_files import load_tensors, save_tensors
from pipeline.training.augment import normalisation_of
from pipeline.training.batch_loss import make_loss
from pipeline.training.crops import CropDataset, LabelSource, TrainingPhoto
from pipeline.training.fit import fit
from pipeline.training.inputs import Inputs, TrainSettings
from pipeline.training.run import initial_segmenter, segmenter_of
from pipeline.training.soft_labels import spread
from pipeline.views import fitted_size

if TYPE_CHECKING:
    from lightning_fabric import Fabric

log = logging.getLogger("carb")
# CARB would let the segmenters of the folds choose among the labels that they are to correct.
WITHOUT_CARB = CarbParams(
    enabled=False,
    tau=0.0,
    warmup_steps=0,
    base=1.0,
    queue_size=1,
    weight=None,
    min_weight=0.0,
)
STRIDE = 4  # pixels of views.base_size per cell of the new labels, at most


def settings_of_fold(params: RelabelSettings) -> TrainSettings:
    """The settings of the training of one fold: global views, without CARB."""
    steps = params.relabel.steps
    train = params.train.model_copy(
        update={"steps": steps, "local_term": False, "preview_every": steps, "snapshots": 0}
    )
    return TrainSettings(
        seed=params.relabel.seed,
        dataset=params.dataset,
        clip=params.clip,
        views=params.views,
        augment=params.augment,
        # An earlier segmenter may have seen the images of the fold.
        segmenter=params.segmenter.model_copy(update={"weights": None}),
        carb=WITHOUT_CARB,
        train=train,
    )


def relabel(inputs: Inputs, params: RelabelSettings, *, out: Path, scratch: Path) -> None:
    """Write the store of new labels of the training images; an interrupted run is resumed.

    Args:
        inputs: see `Inputs.read`, with `settings_of_fold`.
        params: the sections that this stage reads.
        out: path of the store.
        scratch: folder for work in progress.
    """
    fabric = start_fabric(params.train.precision)
    recipe = {"of": inputs.fingerprint, "relabel": params.relabel.model_dump(mode="json")}
    work = scratch / f"relabel-{fingerprint(recipe)[:16]}"
    with lock_on_rank_zero(fabric, work):
        photos = inputs.photos("train", Path(params.dataset.root))
        folds = folds_of([photo.key for photo in photos], params.relabel.folds)
        unit = spread(inputs.store, [photo.key for photo in photos])
        round_ = _Round(fabric, inputs, params, photos, folds, unit, [], None, work)
        placed = [round_.with_prior(fold) for fold in range(params.relabel.folds)]
        round_ = replace(round_, placed=placed)
        for number in range(1, params.relabel.rounds + 1):
            round_ = replace(round_, number=number, work=work / f"round-{number}")
            new = round_.labels(recipe | {"round": number})
            round_ = replace(round_, source=Relabelled(new, inputs.store))
        if fabric.global_rank == 0:
            publish(round_.store, out)
            remove(work)
        fabric.barrier()


@dataclass(frozen=True)
class _Round:
    """One round: a segmenter per fold, then the new labels.

    Attributes:
        fabric: the devices.
        inputs, params: see `relabel`.
        photos: the training images that have image-level labels.
        folds: the fold of each.
        unit: of CLIP's logits, see `spread`.
        placed: for each fold, CLIP's logits with the prior of the images of the others.
        source: labels of the previous round; None: those of ``placed``.
        work: scratch folder of this round.
        number: of the round, from 1.
    """

    fabric: "Fabric"
    inputs: Inputs
    params: RelabelSettings
    photos: list[TrainingPhoto]
    folds: list[int]
    unit: float
    placed: list[PlacedLogits]
    source: LabelSource | None
    work: Path
    number: int = 1

    @property
    def store(self) -> Path:
        """The finished store."""
        return self.work / "store" / STORE

    def labels(self, recipe: dict[str, Any]) -> PseudoMaskStore:
        """Train the segmenters and write the new labels, unless that is done."""
        segmenters = [self._segmenter(fold) for fold in range(self.params.relabel.folds)]
        if self.fabric.global_rank == 0:
            self._write(segmenters, recipe)
        self.fabric.barrier()
        return PseudoMaskStore.open(self.store)

    def _grid(self, photo: TrainingPhoto) -> Grid:
        """Rows and columns of the new labels: those of the store, if they are fine enough."""
        rows, columns = fitted_size(
            photo.size, base_size=self.params.views.base_size, stride=STRIDE
        )
        store = self.inputs.store
        return max(
            store.grid_size(photo.key, store.global_level), (rows // STRIDE, columns // STRIDE)
        )

    def _others(self, fold: int) -> list[TrainingPhoto]:
        """The images of all folds but one."""
        return [p for p, own in zip(self.photos, self.folds, strict=True) if own != fold]

    def with_prior(self, fold: int) -> PlacedLogits:
        """CLIP's logits with the prior of the images that a fold's segmenter learns from."""
        store = self.inputs.store
        prior = place_prior(store, self._others(fold), unit=self.unit)
        return PlacedLogits(store, prior, weight=self.params.relabel.place_weight, unit=self.unit)

    def _segmenter(self, fold: int) -> Segmenter:
        """The segmenter that has not seen the images of a fold."""
        params, file = settings_of_fold(self.params), self.work / f"fold-{fold}.safetensors"
        model = initial_segmenter(self.inputs, params)
        if file.is_file():
            model.load_state_dict(load_tensors(file, require_digest=True)[0])
            model = model.to(self.fabric.device).eval()
        else:
            log.info(
                "relabel: round %d of %d, fold %d of %d",
                *(self.number, self.params.relabel.rounds, fold + 1, self.params.relabel.folds),
            )
            source = self.source or self.placed[fold]
            model = self._train(model, self._others(fold), source, file, params)
        return segmenter_of(model, self.inputs, params)

    def _train(
        self,
        model: nn.Module,
        photos: list[TrainingPhoto],
        source: LabelSource,
        file: Path,
        params: TrainSettings,
    ) -> nn.Module:
        crops = CropDataset(
            photos,
            source,
            global_level=source.global_level,
            local_levels=[],
            views=params.views,
            augment=params.augment,
            seed=params.seed,
        )
        normalisation = normalisation_of(params.segmenter.normalisation)
        checkpoint = file.with_suffix(".checkpoint")
        trained = fit(
            self.fabric,
            model,
            make_loss(
                source, photos, carb=params.carb, train=params.train, normalisation=normalisation
            ),
            crops,
            params.train,
            checkpoint=checkpoint,
            log_step=lambda metrics: None,
            preview=lambda step, model: None,
        )
        if self.fabric.global_rank == 0:
            save_tensors(file, trained.state_dict(), {})
            remove(checkpoint)
        return trained

    def _write(self, segmenters: list[Segmenter], recipe: dict[str, Any]) -> None:
        """Write the new labels of all images, shard by shard."""
        store, relabel = self.inputs.store, self.params.relabel
        level, digests = store.global_level, self.inputs.digests
        plan = Plan(
            recipe,
            store.classes,
            [Photo(photo.key, digests[photo.key], photo.size) for photo in self.photos],
            {level: [self._grid(photo) for photo in self.photos]},
        )
        writer = StoreWriter(self.store.parent, plan, text=store.text, previous=None)
        test_time = TestTimeOptions(flip=True, edge_radius=relabel.edge_radius)

        def labels_of(row: int) -> np.ndarray:
            photo, fold = self.photos[row], self.folds[row]
            image = read_unchanged(photo.path, digests[photo.key])
            size = plan.grids[level][row]
            found = predict_logits(segmenters[fold], [image], size, test_time)[0].cpu()
            clip = upsampled(torch.from_numpy(self.placed[fold].read(photo.key, level)), size)
            return (found + relabel.clip_weight / self.unit * clip).numpy()

        shards = writer.pending([level])
        rows = (row for _, shard in shards for row in writer.write_shard(level, shard, labels_of))
        total = sum(len(plan.rows(level, shard)) for _, shard in shards)
        for _ in progress(rows, label="relabel", total=total):
            pass
