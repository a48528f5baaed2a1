"""Program of each process in test_processes.py: stages, then trainings in both precisions.

torchrun --nproc_per_node 2 tests/helpers/process_program.py FOLDER
"""

import json
import os
import sys
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from pipeline.config.params import Params, load_params
from pipeline.system.devices import start_fabric
from pipeline.training import fit as training
from pipeline.training.augment import normalisation_of
from pipeline.training.batch_loss import make_loss
from pipeline.training.inputs import Inputs
from stages import encoder, pseudo, train
from tests.helpers.small_training import Data, crops_of


class Net(nn.Module):
    """A segmenter without batch statistics and dropout: the number of processes changes nothing."""

    def __init__(self, classes: int, dtype: torch.dtype) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.GroupNorm(2, 8)
        self.last = nn.Conv2d(8, classes, 1)
        self.unused = nn.Conv2d(8, 8, 1)  # smp's encoders have stages that some architectures skip
        self.dtype = dtype
        self.to(dtype)

    def forward(self, images: Tensor) -> Tensor:
        """Logits of the images' size."""
        return self.last(self.norm(self.first(images.to(self.dtype))).relu())


def learn(fabric: Fabric, params: Params, dtype: torch.dtype, name: str) -> None:
    """Train `Net`; write its loss at every step, and its weights."""
    inputs = Inputs.read(
        index=Path("data/scenes.json"),
        image_labels=Path("data/image_labels.csv"),
        masks=Path("data/masks.zarr"),
        encoder=Path("models/encoder.safetensors"),
        params=params,
    )
    losses: list[float] = []
    photos = inputs.photos("train", Path(params.dataset.root))
    net = training.fit(
        fabric,
        Net(len(inputs.store.classes), dtype),
        make_loss(
            inputs.store,
            photos,
            carb=params.carb,
            train=params.train,
            normalisation=normalisation_of(params.segmenter.normalisation),
        ),
        crops_of(Data(photos, inputs.store), params),
        params.train,
        checkpoint=Path(f"{name}.safetensors"),
        log_step=lambda metrics: losses.append(metrics["total"]),
        preview=lambda step, model: None,
    )
    if fabric.global_rank == 0:
        Path(f"{name}.json").write_text(json.dumps(losses), "utf-8")
        torch.save(net.state_dict(), f"{name}.pt")


def main(folder: Path) -> None:
    """Run the stages, then train `Net`, every step logged."""
    os.chdir(folder)
    training.LOG_EVERY = 1
    pseudo.app([], standalone_mode=False)
    train.app([], standalone_mode=False)
    learned = ["--params", "clip.yaml", "--out", "learned.safetensors"]
    encoder.app(learned, standalone_mode=False)
    params, fabric = load_params(Path("params.yaml")), start_fabric("32-true")
    learn(fabric, params, torch.float64, "double")
    learn(fabric, params, torch.float32, "single")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
